#include "engine/generation_weights.cuh"

#include <algorithm>

#include "engine/embedding.cuh"
#include "engine/gemm_int8.cuh"
#include "engine/lora.cuh"
#include "engine/quantise.cuh"

namespace covenant::cuda {
namespace {

using Form = GenerationWeights::Form;

Form form_of(int32_t type, bool bf16_model) {
  switch (type) {
    case COV_WEIGHTS_F32: return bf16_model ? Form::kTensor : Form::kF32;
    case COV_WEIGHTS_BF16: return Form::kBf16;
    case COV_WEIGHTS_INT8: return Form::kInt8;
    default: raise(COV_INVALID_ARGUMENT, "weights is %d, no weight type", type);
  }
}

bool holds(const Slice& slice, uint64_t offset) {
  return std::any_of(slice.parts.begin(), slice.parts.end(), [&](const Slice::Part& part) {
    return part.global <= offset && offset < part.global + part.count;
  });
}

}  // namespace

GenerationWeights::GenerationWeights(Model& model, int32_t type, Keep keep)
    : model_(model), type_(type), keep_(keep), form_(form_of(type, model.bf16())) {
  Cutter measure(nullptr);
  lay_out(measure, false);
  if (measure.bytes() > 0) data_ = Buffer<char>(model.device(), measure.bytes());
  refresh();
}

GenerationWeights::~GenerationWeights() {
  if (data_.data() == nullptr) return;
  (void)guard([&] {
    model_.device().activate();
    model_.device().finish();
  });
}

void GenerationWeights::refresh() {
  const Layout& l = model_.layout();
  const Arena::Scope scope(model_.device().scratch());
  const Lora* const lora = model_.lora();
  if (!packed())
    model_.prepare(0);
  else if (lora != nullptr && !lora->merged())
    adapted_ = model_.device().scratch().take<float>(
        static_cast<uint64_t>(l.d * std::max({l.attention.width(), l.d, 2 * l.f})));
  Cutter cutter(data_.data());
  lay_out(cutter, true);
  adapted_ = nullptr;
}

void GenerationWeights::lay_out(Cutter& cutter, bool fill) {
  const Layout& l = model_.layout();
  const Slice& slice = model_.slice();
  layers_.resize(static_cast<size_t>(l.layers));
  for (int64_t i = 0; i < l.layers; ++i) {
    Layer& layer = layers_[static_cast<size_t>(i)];
    layer.norm1 = vector(cutter, fill, l.norm1(i));
    layer.qkv = matrix(cutter, fill, l.qkv(i), l.attention.width(), l.d);
    layer.o = matrix(cutter, fill, l.o(i), l.d, l.d);
    layer.norm2 = vector(cutter, fill, l.norm2(i));
    layer.gate_up = matrix(cutter, fill, l.gate_up(i), 2 * l.f, l.d);
    layer.down = matrix(cutter, fill, l.down(i), l.d, l.f);
  }
  if (holds(slice, 0)) embedding_ = embedding(cutter, fill);
  if (!holds(slice, cov_parameter_count(&model_.shape()) - 1)) return;
  final_norm_ = vector(cutter, fill, l.final_norm);
  // A tied head that is kept as the embedding is, is the embedding.
  const bool same = l.head == 0 && (form_ == Form::kF32 || form_ == Form::kBf16);
  head_ = same ? embedding_ : matrix(cutter, fill, l.head, l.vocab, l.d);
}

// The fp32 matrix with the adapters in use, until the next one.
const float* GenerationWeights::effective(int64_t offset) {
  if (adapted_ != nullptr && model_.lora()->compose_matrix(offset, adapted_)) return adapted_;
  return model_.state(COV_PARAMETERS) + offset;
}

GenerationMatrix GenerationWeights::matrix(Cutter& cutter, bool fill, int64_t offset, int64_t n, int64_t k) {
  GenerationMatrix m = {n, k};
  const Stream stream = model_.stream();
  if (form_ == Form::kInt8) {
    auto* const bytes = cutter.take<int8_t>(n * int8_stride(k));
    auto* const scales = cutter.take<float>(n);
    if (fill) quantise(stream, effective(offset), n, k, bytes, scales);
    m.int8 = bytes;
    m.scales = scales;
  } else if (!packed()) {
    if (form_ == Form::kF32)
      m.f32 = fill ? model_.matrix(offset) : nullptr;
    else
      m.bf16 = model_.rounded_matrix(offset);
  } else if (form_ == Form::kF32) {
    auto* const copy = cutter.take<float>(n * k);
    if (fill) model_.device().copy(copy, effective(offset), static_cast<uint64_t>(n * k) * sizeof(float));
    m.f32 = copy;
  } else {
    auto* const copy = cutter.take<uint16_t>(n * k);
    if (fill && form_ == Form::kBf16) round_weights(stream, effective(offset), n * k, copy);
    if (fill && form_ == Form::kTensor) to_bf16(stream, effective(offset), n * k, copy);
    m.bf16 = copy;
  }
  return m;
}

GenerationMatrix GenerationWeights::embedding(Cutter& cutter, bool fill) {
  const Layout& l = model_.layout();
  // Only matrices that are multiplied with become bytes, or bf16 of a bf16 model.
  if (form_ == Form::kBf16) return matrix(cutter, fill, 0, l.vocab, l.d);
  GenerationMatrix m = {l.vocab, l.d};
  const float* const own = model_.state(COV_PARAMETERS);
  m.f32 = own;
  if (!packed()) return m;
  auto* const copy = cutter.take<float>(l.vocab * l.d);
  if (fill) model_.device().copy(copy, own, static_cast<uint64_t>(l.vocab * l.d) * sizeof(float));
  m.f32 = copy;
  return m;
}

const float* GenerationWeights::vector(Cutter& cutter, bool fill, int64_t offset) {
  const int64_t d = model_.layout().d;
  const float* const own = model_.state(COV_PARAMETERS) + offset;
  if (!packed()) return own;
  auto* const copy = cutter.take<float>(d);
  if (!fill) return copy;
  if (form_ == Form::kBf16)
    round_weights(model_.stream(), own, d, copy);
  else
    model_.device().copy(copy, own, static_cast<uint64_t>(d) * sizeof(float));
  return copy;
}

void GenerationWeights::embed(const int32_t* tokens, int64_t rows, float* x) const {
  const Stream stream = model_.stream();
  if (embedding_.f32 != nullptr)
    cuda::embed(stream, embedding_.f32, tokens, rows, embedding_.k, x);
  else
    cuda::embed(stream, embedding_.bf16, tokens, rows, embedding_.k, x);
}

}  // namespace covenant::cuda
