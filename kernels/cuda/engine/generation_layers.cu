#include "engine/generation_layers.cuh"

#include <algorithm>

#include "engine/gemm_f32_few.cuh"
#include "engine/gemm_int8.cuh"
#include "engine/optimizer.cuh"
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
    : weights_(weights), model_(weights.model()) {
  const Layout& l = model_.layout();
  const Form form = weights_.form();
  const auto cut = [&](Cutter cutter) {
    const auto take_rows = [&](int64_t count) {
      if (form == Form::kTensor) return Rows{nullptr, cutter.take<uint16_t>(count)};
      return Rows{cutter.take<float>(count), nullptr};
    };
    x_ = cutter.take<float>(rows * l.d);
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

Rows GenerationLayers::normalise(const float* x, const int32_t* index, const float* gain, int64_t rows) {
  const int64_t d = model_.layout().d;
  if (weights_.form() == Form::kInt8)
    rmsnorm_quantise(model_.stream(), x, index, gain, model_.eps(), rows, d, normed_.f32, bytes_, scales_);
  else
    rmsnorm(model_.stream(), x, index, gain, model_.eps(), rows, d, normed_, nullptr);
  return normed_;
}

Rows GenerationLayers::attended(int64_t rows) {
  const int64_t d = model_.layout().d;
  if (weights_.form() == Form::kInt8) quantise(model_.stream(), attention_, rows, d, bytes_, scales_);
  if (weights_.form() == Form::kTensor) to_bf16(model_.stream(), attention_, rows * d, attended_.bf16);
  return attended_;
}

Rows GenerationLayers::gated(int64_t rows) {
  const int64_t f = model_.layout().f;
  if (weights_.form() == Form::kInt8)
    swiglu_quantise(model_.stream(), gate_up_, rows, f, hidden_.f32, bytes_, scales_);
  else
    swiglu(model_.stream(), gate_up_, rows, f, hidden_);
  return hidden_;
}

void GenerationLayers::multiply(const GenerationMatrix& w, Rows x, int64_t rows, const float* init, float* out) {
  const Stream stream = model_.stream();
  switch (weights_.form()) {
    case Form::kTensor:
      return cuda::multiply(stream, ProductBf16{rows, w.n, w.k, {x.bf16, w.k, true}, {w.bf16, w.k, true}, init, out});
    case Form::kInt8:
      return cuda::multiply(
          stream, ProductInt8{rows, w.n, w.k, int8_stride(w.k), bytes_, scales_, w.int8, w.scales, init, out});
    default: return multiply_f32(stream, w, x.f32, rows, init, out);
  }
}

void GenerationLayers::forward(int64_t first, const int32_t* positions, int64_t rows, const Attend& attend) {
  const Layout& l = model_.layout();
  float* const x = x_ + first * l.d;
  const Stream stream = model_.stream();
  for (int64_t i = 0; i < l.layers; ++i) {
    const GenerationWeights::Layer& layer = weights_.layer(i);
    multiply(layer.qkv, normalise(x, nullptr, layer.norm1, rows), rows, nullptr, qkv_);
    rope(stream, qkv_, positions, model_.cosine(), model_.sine(), rows, l.attention.width(),
         l.attention.heads + l.attention.kv_heads, l.attention.dim, false);
    attend(i, qkv_, attention_);
    multiply(layer.o, attended(rows), rows, x, x);
    multiply(layer.gate_up, normalise(x, nullptr, layer.norm2, rows), rows, nullptr, gate_up_);
    multiply(layer.down, gated(rows), rows, x, x);
  }
}

void GenerationLayers::logits(const int32_t* index, int64_t rows, float* out) {
  multiply(weights_.head(), normalise(x_, index, weights_.final_norm(), rows), rows, nullptr, out);
}

}  // namespace covenant::cuda
