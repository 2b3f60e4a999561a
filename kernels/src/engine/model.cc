// Life cycle of a model: creation, buffers, packing, rotary table.
#include "engine/model.h"

#include <cmath>
#include <cstring>

#include "engine/gemm.h"
#include "engine/lora.h"

namespace covenant {

Layout::Layout(const cov_model_shape& shape, Compute compute_format)
    : vocab(shape.vocab_size),
      d(shape.hidden_size),
      f(shape.intermediate_size),
      layers(shape.layer_count),
      attention{shape.head_count, shape.kv_head_count, shape.hidden_size / shape.head_count} {
  layer_size = attention.width() * d + d * d + 3 * f * d + 2 * d;
  first_layer = vocab * d;
  final_norm = first_layer + layers * layer_size;
  head = shape.tie_word_embeddings ? 0 : final_norm + d;
  compute = compute_format;
}

namespace {

// A stored matrix (n, k) and where its packed form belongs.
struct StoredMatrix {
  int64_t offset, n, k;
  PackedMatrix PackedWeights::Layer::*of_layer;  // null: the head
  int64_t layer;
};

std::vector<StoredMatrix> stored_matrices(const Layout& l) {
  using Layer = PackedWeights::Layer;
  std::vector<StoredMatrix> matrices;
  for (int64_t layer = 0; layer < l.layers; ++layer) {
    matrices.push_back({l.qkv(layer), l.attention.width(), l.d, &Layer::qkv, layer});
    matrices.push_back({l.o(layer), l.d, l.d, &Layer::o, layer});
    matrices.push_back({l.gate_up(layer), 2 * l.f, l.d, &Layer::gate_up, layer});
    matrices.push_back({l.down(layer), l.d, l.f, &Layer::down, layer});
  }
  matrices.push_back({l.head, l.vocab, l.d, nullptr, 0});
  return matrices;
}

// Shapes and places of the packed forms; the memory is kept from call to call.
std::vector<PackedMatrix*> lay_out(cov_model& model, const std::vector<StoredMatrix>& matrices,
                                   bool backward) {
  const Compute format = model.layout.compute;
  PackedWeights& packed = backward ? model.backward_weights : model.forward_weights;
  packed.layers.resize(static_cast<size_t>(model.layout.layers));
  std::vector<PackedMatrix*> places;
  int64_t size = 0;
  for (const StoredMatrix& m : matrices) {
    places.push_back(m.of_layer == nullptr
                         ? &packed.head
                         : &(packed.layers[static_cast<size_t>(m.layer)].*m.of_layer));
    *places.back() = {format, backward ? m.n : m.k, backward ? m.k : m.n, nullptr};
    size += packed_bytes(format, places.back()->k, places.back()->n);
  }
  char* next = packed.data.reserve(model.memory, size);
  for (PackedMatrix* place : places) {
    place->data = next;
    next += packed_bytes(format, place->k, place->n);
  }
  return places;
}

}  // namespace

void pack_weights(cov_model& model, Passes passes) {
  const std::vector<StoredMatrix> matrices = stored_matrices(model.layout);
  std::vector<PackedMatrix*> forward(matrices.size()), backward(matrices.size());
  if (passes != Passes::kBackward) forward = lay_out(model, matrices, false);
  if (passes != Passes::kForward) backward = lay_out(model, matrices, true);
  for (size_t i = 0; i < matrices.size(); ++i) {
    const StoredMatrix& m = matrices[i];
    const float* w = effective_matrix(model, m.offset, m.n, m.k);
    pack(model.pool, w, m.n, m.k, forward[i], backward[i]);
  }
}

void prepare_rope(cov_model& model, int64_t length) {
  if (length <= model.rope_length) return;
  const int64_t half = model.layout.attention.dim / 2;
  model.rope_length = 0;  // stays consistent if an allocation below is refused
  model.cosine.reserve(model.memory, length * half);
  model.sine.reserve(model.memory, length * half);
  for (int64_t i = 0; i < half; ++i) {
    // Frequencies and angles are fp32, as in Hugging Face's rotary embedding.
    const double exponent = static_cast<double>(2 * i) / static_cast<double>(2 * half);
    const float frequency = 1.0f / static_cast<float>(std::pow(model.shape.rope_theta, exponent));
    for (int64_t position = 0; position < length; ++position) {
      const double angle = static_cast<double>(static_cast<float>(position) * frequency);
      model.cosine[position * half + i] = static_cast<float>(std::cos(angle));
      model.sine[position * half + i] = static_cast<float>(std::sin(angle));
    }
  }
  model.rope_length = length;
}

void check_tokens(const cov_model_shape& shape, const int32_t* tokens, int64_t count,
                  const char* what) {
  for (int64_t i = 0; i < count; ++i)
    if (tokens[i] < 0 || tokens[i] >= shape.vocab_size)
      throw Failure{cov_error(COV_OUT_OF_RANGE, "%s %lld is %d, the vocabulary has %d", what,
                              static_cast<long long>(i), tokens[i], shape.vocab_size)};
}

}  // namespace covenant

cov_model::cov_model(const cov_model_shape& model_shape, covenant::Compute compute_format,
                     int threads, uint64_t memory_limit_bytes)
    : shape(model_shape),
      layout(model_shape, compute_format),
      memory(memory_limit_bytes),
      pool(threads) {}

float* cov_model::state(cov_buffer which) {
  covenant::Buffer<float>& buffer = buffers[which];
  if (buffer.data() == nullptr) {
    const uint64_t count = cov_parameter_count(&shape);
    buffer.reserve(memory, static_cast<int64_t>(count));
    std::memset(buffer.data(), 0, count * sizeof(float));
  }
  return buffer.data();
}

// ---- C API -------------------------------------------------------------------------------------

extern "C" int32_t cov_default_threads(void) { return covenant::default_thread_count(); }

extern "C" cov_status cov_model_create(const cov_model_shape* shape,
                                       const cov_model_options* options, cov_model** model) {
  if (model == nullptr || options == nullptr)
    return cov_error(COV_INVALID_ARGUMENT, "options and the result pointer must not be null");
  *model = nullptr;
  const cov_status status = cov_shape_check(shape);
  if (status.code != COV_OK) return status;
  if (options->threads < 0 || options->threads > 256)
    return cov_error(COV_INVALID_ARGUMENT, "threads is %d, must be in [0, 256]", options->threads);
  if (options->compute != COV_COMPUTE_F32 && options->compute != COV_COMPUTE_BF16)
    return cov_error(COV_INVALID_ARGUMENT, "compute is %d, must be a cov_compute",
                     options->compute);
  const uint64_t count = cov_parameter_count(shape);
  if (options->parameters != nullptr && options->parameter_count != count)
    return cov_error(COV_INVALID_ARGUMENT, "%llu parameters given, the shape has %llu",
                     static_cast<unsigned long long>(options->parameter_count),
                     static_cast<unsigned long long>(count));
  return covenant::guarded([&] {
    const int threads = options->threads == 0 ? cov_default_threads() : options->threads;
    const auto compute = static_cast<covenant::Compute>(options->compute);
    cov_model* created = new cov_model(*shape, compute, threads, options->memory_limit_bytes);
    try {
      float* parameters = created->state(COV_PARAMETERS);
      if (options->parameters != nullptr)
        std::memcpy(parameters, options->parameters, count * sizeof(float));
    } catch (...) {
      delete created;
      throw;
    }
    *model = created;
    return cov_ok();
  });
}

extern "C" void cov_model_retain(cov_model* model) {
  model->references.fetch_add(1, std::memory_order_relaxed);
}

extern "C" void cov_model_release(cov_model* model) {
  if (model != nullptr && model->references.fetch_sub(1, std::memory_order_acq_rel) == 1)
    delete model;
}

extern "C" const cov_model_shape* cov_model_get_shape(const cov_model* model) {
  return &model->shape;
}

extern "C" int32_t cov_model_threads(const cov_model* model) { return model->pool.threads(); }

extern "C" uint64_t cov_model_memory_bytes(const cov_model* model) {
  return model->memory.used_bytes();
}

extern "C" uint64_t cov_model_memory_peak_bytes(const cov_model* model) {
  return model->memory.peak_bytes();
}

extern "C" void cov_model_trim(cov_model* model) {
  model->forward_weights = covenant::PackedWeights();
  model->backward_weights = covenant::PackedWeights();
  model->activations = covenant::Activations();
  model->kept = covenant::KeptForward();
  model->generation_weights.reset();
  model->attention_scratch.free();
  model->work.free();
}

extern "C" cov_status cov_model_buffer(cov_model* model, int32_t which, float** data,
                                       uint64_t* length) {
  if (model == nullptr || data == nullptr || length == nullptr || which < COV_PARAMETERS ||
      which > COV_SECOND_MOMENT)
    return cov_error(COV_INVALID_ARGUMENT, "unknown buffer or null pointer");
  return covenant::guarded([&] {
    *data = model->state(static_cast<cov_buffer>(which));
    *length = cov_parameter_count(&model->shape);
    return cov_ok();
  });
}

extern "C" int64_t cov_model_step_count(const cov_model* model) { return model->step_count; }

extern "C" cov_status cov_model_set_step_count(cov_model* model, int64_t count) {
  if (model == nullptr || count < 0)
    return cov_error(COV_INVALID_ARGUMENT, "the step count must not be negative");
  model->step_count = count;
  return cov_ok();
}
