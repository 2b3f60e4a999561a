#include "engine/generation_layers.cuh"

#include <algorithm>

#include "engine/gemm_f32_few.cuh"
#include "engine/gemm_int8.cuh"
#include "engine/quantise.cuh"
#include "engine/rmsnorm.cuh"
#include "engine/rope.cuh"
#include "engine/swiglu.cuh"

namespace covenant::cuda {
namespace {

using Form = GenerationWeights::Form;

void multiply_f32(Stream stream, const GenerationMatrix& w, const float* x, int64_t rows, const float* init,
                  float* out) {
  const ProductFew few = {rows, w.n, w.k, x, w.f32, w.bf16, init, out};
  if (takes_few_rows(few)) return multiply_few_rows(stream, few);
  Product product = {rows, w.n, w.k, x, w.k, 1, w.f32, 1, w.k, init, out, w.n};
  product.b16 = w.bf16;
  cuda::multiply(stream, product);
}

}  // namespace

GenerationLayers::GenerationLayers(const GenerationWeights& weights, int64_t rows)
    : weights_(weights), model_(weights.model()), rows_max_(rows) {
  reserve();
}

void GenerationLayers::reserve() {
  const Layout& l = model_.layout();
  const Form form = weights_.form();
  const int64_t rows = rows_max_;
  const auto cut = [&](Cutter cutter) {
    const auto take_rows = [&](int64_t count) {
      if (form == Form::kTensor) return Rows{nullptr, cutter.take<uint16_t>(count)};
      return Rows{cutter.take<float>(count), nullptr};
    };
    x_ = cutter.take<float>(rows * l.d);
    root_ = cutter.take<float>(rows);
    qkv_ = cutter.take<float>(rows * l.attention.width());
    attention_ = cutter.take<float>(rows * l.d);
    gate_up_ = cutter.take<float>(rows * 2 * l.f);
    normed_ = take_rows(rows * l.d);
    attended_ = form == Form::kTensor ? take_rows(rows * l.d) : Rows{attention_, nullptr};
    hidden_ = take_rows(rows * l.f);
    if (form == Form::kInt8) {
      bytes_ = cutter.take<int8_t>(rows * int8_stride(std::max(l.d, l.f)));
      scales_ = cutter.take<float>(rows);
    }
    return cutter.bytes();
  };
  data_ = Buffer<char>(model_.device(), cut(Cutter(nullptr)));
  cut(Cutter(data_.data()));
}

void GenerationLayers::normalise(const int32_t* index, const float* gain, int64_t rows) {
  rmsnorm(model_.stream(), x_, index, gain, model_.eps(), rows, model_.layout().d, normed_, root_);
}

void GenerationLayers::multiply(const GenerationMatrix& w, Rows x, int64_t rows, const float* init, float* out) {
  const Stream stream = model_.stream();
  if (weights_.form() == Form::kTensor)
    return cuda::multiply(stream, ProductBf16{rows, w.n, w.k, {x.bf16, w.k, true}, {w.bf16, w.k, true}, init, out});
  if (weights_.form() != Form::kInt8) return multiply_f32(stream, w, x.f32, rows, init, out);
  quantise(stream, x.f32, rows, w.k, bytes_, scales_);
  cuda::multiply(stream, ProductInt8{rows, w.n, w.k, int8_stride(w.k), bytes_, scales_, w.int8, w.scales, init, out});
}

void GenerationLayers::forward(const int32_t* positions, int64_t rows, const Attend& attend) {
  const Layout& l = model_.layout();
  const Stream stream = model_.stream();
  for (int64_t i = 0; i < l.layers; ++i) {
    const GenerationWeights::Layer& layer = weights_.layer(i);
    normalise(nullptr, layer.norm1, rows);
    multiply(layer.qkv, normed_, rows, nullptr, qkv_);
    rope(stream, qkv_, positions, model_.cosine(), model_.sine(), rows, l.attention.width(),
         l.attention.heads + l.attention.kv_heads, l.attention.dim, false);
    attend(i, qkv_, attention_);
    if (weights_.form() == Form::kTensor) to_bf16(stream, attention_, rows * l.d, attended_.bf16);
    multiply(layer.o, attended_, rows, x_, x_);
    normalise(nullptr, layer.norm2, rows);
    multiply(layer.gate_up, normed_, rows, nullptr, gate_up_);
    swiglu(stream, gate_up_, rows, l.f, hidden_);
    multiply(layer.down, hidden_, rows, x_, x_);
  }
}

void GenerationLayers::logits(const int32_t* index, int64_t rows, float* out) {
  normalise(index, weights_.final_norm(), rows);
  multiply(weights_.head(), normed_, rows, nullptr, out);
}

}  // namespace covenant::cuda
