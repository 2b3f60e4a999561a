// Names, order and initial values of the parameters of a LLaMA-style decoder.
#include "covenant/tensors.h"

#include <cmath>
#include <cstdio>
#include <cstring>

#include "covenant/rng.h"

namespace {

// Limits keep every product below within int64 and every index within int32.
constexpr int32_t kVocabMax = 1 << 20;
constexpr int32_t kHiddenMax = 1 << 16;
constexpr int32_t kIntermediateMax = 1 << 18;
constexpr int32_t kLayersMax = 1024;
constexpr int32_t kPositionsMax = 1 << 20;
constexpr uint32_t kInitDomain = 0x494e4954u;  // "INIT"

cov_status check_range(const char* name, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) return cov_ok();
  return cov_error(COV_INVALID_ARGUMENT, "%s is %lld, must be in [%lld, %lld]", name,
                   static_cast<long long>(value), static_cast<long long>(low),
                   static_cast<long long>(high));
}

// Appends tensors one after the other.
struct TableWriter {
  cov_tensor_info* tensors;
  int32_t count = 0;
  uint64_t offset = 0;

  void add(int32_t layer, const char* name, int64_t rows, int64_t columns) {
    cov_tensor_info& tensor = tensors[count++];
    std::memset(&tensor, 0, sizeof tensor);
    if (layer < 0)
      std::snprintf(tensor.name, sizeof tensor.name, "%s", name);
    else
      std::snprintf(tensor.name, sizeof tensor.name, "model.layers.%d.%s.weight", layer, name);
    tensor.rank = columns == 0 ? 1 : 2;
    tensor.dims[0] = rows;
    tensor.dims[1] = columns == 0 ? 1 : columns;
    tensor.offset = offset;
    tensor.length = static_cast<uint64_t>(tensor.dims[0]) * static_cast<uint64_t>(tensor.dims[1]);
    offset += tensor.length;
  }
};

bool ends_with(const char* text, const char* suffix) {
  const size_t n = std::strlen(text), m = std::strlen(suffix);
  return n >= m && std::memcmp(text + n - m, suffix, m) == 0;
}

// One matrix element: eight 16-bit halves summed exactly, centred, scaled, rounded once.
float initial_value(uint64_t seed, uint64_t element, uint32_t tensor, double scale) {
  const uint32_t key[2] = {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)};
  const uint32_t counter[4] = {static_cast<uint32_t>(element), static_cast<uint32_t>(element >> 32),
                               tensor, kInitDomain};
  uint32_t x[4];
  cov_philox4x32(key, counter, x);
  int32_t sum = -262140;  // 8 * 32767.5
  for (uint32_t word : x) sum += static_cast<int32_t>((word & 0xffffu) + (word >> 16));
  return static_cast<float>(static_cast<double>(sum) * scale);
}

}  // namespace

extern "C" cov_status cov_shape_check(const cov_model_shape* shape) {
  if (shape == nullptr) return cov_error(COV_INVALID_ARGUMENT, "shape is null");
  const struct {
    const char* name;
    int64_t value, low, high;
  } ranges[] = {
      {"vocab_size", shape->vocab_size, 2, kVocabMax},
      {"hidden_size", shape->hidden_size, 2, kHiddenMax},
      {"intermediate_size", shape->intermediate_size, 1, kIntermediateMax},
      {"layer_count", shape->layer_count, 1, kLayersMax},
      {"head_count", shape->head_count, 1, shape->hidden_size / 2},
      {"kv_head_count", shape->kv_head_count, 1, shape->head_count},
      {"max_positions", shape->max_positions, 1, kPositionsMax},
      {"tie_word_embeddings", shape->tie_word_embeddings, 0, 1},
  };
  for (const auto& range : ranges) {
    const cov_status status = check_range(range.name, range.value, range.low, range.high);
    if (status.code != COV_OK) return status;
  }
  if (shape->hidden_size % shape->head_count != 0 ||
      (shape->hidden_size / shape->head_count) % 2 != 0)
    return cov_error(COV_INVALID_ARGUMENT, "hidden_size %d does not split into %d even heads",
                     shape->hidden_size, shape->head_count);
  if (shape->head_count % shape->kv_head_count != 0)
    return cov_error(COV_INVALID_ARGUMENT, "head_count %d is not a multiple of kv_head_count %d",
                     shape->head_count, shape->kv_head_count);
  if (!(shape->rope_theta >= 1.0 && shape->rope_theta <= 1e12))
    return cov_error(COV_INVALID_ARGUMENT, "rope_theta must be in [1, 1e12]");
  if (!(shape->rms_norm_eps > 0.0 && shape->rms_norm_eps <= 1.0))
    return cov_error(COV_INVALID_ARGUMENT, "rms_norm_eps must be in (0, 1]");
  return cov_ok();
}

extern "C" int32_t cov_tensor_count(const cov_model_shape* shape) {
  return 2 + 9 * shape->layer_count + (shape->tie_word_embeddings ? 0 : 1);
}

extern "C" uint64_t cov_parameter_count(const cov_model_shape* shape) {
  const uint64_t d = static_cast<uint64_t>(shape->hidden_size);
  const uint64_t f = static_cast<uint64_t>(shape->intermediate_size);
  const uint64_t kv =
      d / static_cast<uint64_t>(shape->head_count) * static_cast<uint64_t>(shape->kv_head_count);
  const uint64_t layer = 2 * d * d + 2 * kv * d + 3 * f * d + 2 * d;
  const uint64_t head = static_cast<uint64_t>(shape->vocab_size) * d;
  return layer * static_cast<uint64_t>(shape->layer_count) + d +
         head * (shape->tie_word_embeddings ? 1 : 2);
}

extern "C" cov_status cov_tensor_table(const cov_model_shape* shape, cov_tensor_info* tensors,
                                       int32_t capacity) {
  const cov_status status = cov_shape_check(shape);
  if (status.code != COV_OK) return status;
  if (tensors == nullptr || capacity < cov_tensor_count(shape))
    return cov_error(COV_INVALID_ARGUMENT, "tensor table needs room for %d entries",
                     cov_tensor_count(shape));
  const int64_t d = shape->hidden_size, f = shape->intermediate_size;
  const int64_t kv = d / shape->head_count * shape->kv_head_count;
  TableWriter table{tensors};
  table.add(-1, "model.embed_tokens.weight", shape->vocab_size, d);
  for (int32_t layer = 0; layer < shape->layer_count; ++layer) {
    table.add(layer, "self_attn.q_proj", d, d);
    table.add(layer, "self_attn.k_proj", kv, d);
    table.add(layer, "self_attn.v_proj", kv, d);
    table.add(layer, "self_attn.o_proj", d, d);
    table.add(layer, "mlp.gate_proj", f, d);
    table.add(layer, "mlp.up_proj", f, d);
    table.add(layer, "mlp.down_proj", d, f);
    table.add(layer, "input_layernorm", d, 0);
    table.add(layer, "post_attention_layernorm", d, 0);
  }
  table.add(-1, "model.norm.weight", d, 0);
  if (!shape->tie_word_embeddings) table.add(-1, "lm_head.weight", shape->vocab_size, d);
  return cov_ok();
}

extern "C" cov_status cov_initial_parameters(const cov_model_shape* shape, uint64_t seed,
                                             float* parameters, uint64_t length) {
  cov_status status = cov_shape_check(shape);
  if (status.code != COV_OK) return status;
  if (parameters == nullptr || length != cov_parameter_count(shape))
    return cov_error(COV_INVALID_ARGUMENT, "initial parameters need a buffer of %llu floats",
                     static_cast<unsigned long long>(cov_parameter_count(shape)));
  const double unit = std::sqrt(8.0 * 4294967295.0 / 12.0);
  const double residual = 0.02 / std::sqrt(2.0 * shape->layer_count);
  // Walks the table one tensor at a time, so that no memory is needed for it.
  cov_model_shape one = *shape;
  one.layer_count = 1;
  cov_tensor_info table[12];
  status = cov_tensor_table(&one, table, 12);
  if (status.code != COV_OK) return status;
  const int32_t count = cov_tensor_count(shape);
  uint64_t offset = 0;
  for (int32_t t = 0; t < count; ++t) {
    const int32_t last = 1 + 9 * shape->layer_count;
    const cov_tensor_info& info = t == 0     ? table[0]
                                  : t < last ? table[1 + (t - 1) % 9]
                                             : table[10 + (t - last)];
    const bool scaled =
        ends_with(info.name, "o_proj.weight") || ends_with(info.name, "down_proj.weight");
    const double scale = (scaled ? residual : 0.02) / unit;
    for (uint64_t i = 0; i < info.length; ++i)
      parameters[offset + i] =
          info.rank == 1 ? 1.0f : initial_value(seed, i, static_cast<uint32_t>(t), scale);
    offset += info.length;
  }
  return cov_ok();
}
