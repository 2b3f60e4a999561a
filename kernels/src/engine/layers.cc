// Forward and backward through the decoder layers:
//   x2 = x + Attention(RMSNorm(x)) Wo^T ;  x' = x2 + SwiGLU(RMSNorm(x2) Wgu^T) Wdown^T
#include <algorithm>
#include <cstring>

#include "engine/gemm.h"
#include "engine/lora.h"
#include "engine/model.h"
#include "engine/rowwise.h"

namespace covenant {
namespace {

int64_t round16(int64_t n) { return (n + 15) / 16 * 16; }

}  // namespace

void Activations::reserve(Memory& memory, const Layout& layout, int64_t count, bool shared) {
  rows = count;
  if (count <= capacity_ && shared == shared_) return;
  const int64_t d = layout.d, width = layout.attention.width(), heads = layout.attention.heads;
  capacity_ = 0;
  layers.clear();
  layers.resize(static_cast<size_t>(layout.layers));
  data.free();
  // Sizes first, with no memory behind them, then the same again for good.
  int64_t used = 0;
  float* base = nullptr;
  const auto take = [&](int64_t floats) {
    float* p = base == nullptr ? nullptr : base + used;
    used += round16(floats);  // whole cache lines
    return p;
  };
  const auto take_operand = [&](int64_t columns) -> Operand {
    if (layout.compute == Compute::kF32) return {take(count * columns), nullptr};
    return {nullptr, reinterpret_cast<Bf16*>(take((bf16_size(count, columns) + 1) / 2))};
  };
  const auto cut = [&] {
    used = 0;
    for (size_t i = 0; i < layers.size(); ++i) {
      Layer& layer = layers[i];
      if (shared && i > 0) {
        layer = layers[0];
        continue;
      }
      layer.x = take(count * d);
      layer.r1 = take(count);
      layer.qkv = take(count * width);
      layer.att = take(count * d);
      layer.lse = take(count * heads);
      layer.x2 = take(count * d);
      layer.r2 = take(count);
      layer.gate_up = take(count * 2 * layout.f);
      layer.n1 = take_operand(d);
      layer.n2 = take_operand(d);
      layer.att_operand =
          layout.compute == Compute::kF32 ? Operand{layer.att, nullptr} : take_operand(d);
    }
    last = take(count * d);
    hidden = take_operand(layout.f);
  };
  cut();
  base = data.reserve(memory, used);
  cut();
  capacity_ = count;
  shared_ = shared;
}

void forward_layers(cov_model& model, const int32_t* tokens, const int32_t* positions,
                    Activations& activations, AttentionRef attention) {
  const Layout& l = model.layout;
  const int64_t rows = activations.rows, d = l.d, width = l.attention.width();
  const int64_t rotated = l.attention.heads + l.attention.kv_heads;
  const float* p = model.parameters();
  ThreadPool& pool = model.pool;
  embed(pool, p, tokens, rows, d, activations.layers[0].x);
  for (int64_t layer = 0; layer < l.layers; ++layer) {
    const Activations::Layer& a = activations.layers[static_cast<size_t>(layer)];
    const PackedWeights::Layer& w = model.forward_weights.layers[static_cast<size_t>(layer)];
    float* next = layer + 1 < l.layers ? activations.layers[static_cast<size_t>(layer + 1)].x
                                       : activations.last;
    rmsnorm(pool, a.x, p + l.norm1(layer), model.eps(), rows, d, a.n1, a.r1);
    multiply(pool, a.n1, rows, w.qkv, nullptr, a.qkv);
    rope(pool, a.qkv, positions, model.cosine.data(), model.sine.data(), rows, width, rotated,
         l.attention.dim, false);
    attention(layer, a.qkv, a.att, a.lse);
    operand(pool, l.compute, a.att, rows, d, a.att_operand.bf16);
    multiply(pool, a.att_operand, rows, w.o, a.x, a.x2);
    rmsnorm(pool, a.x2, p + l.norm2(layer), model.eps(), rows, d, a.n2, a.r2);
    multiply(pool, a.n2, rows, w.gate_up, nullptr, a.gate_up);
    swiglu(pool, a.gate_up, rows, l.f, activations.hidden);
    multiply(pool, activations.hidden, rows, w.down, a.x2, next);
  }
}

namespace {

// Memory of backward_layers, cut from one block; with no block it only counts.
struct BackwardWork {
  float *dhidden, *dn, *dqkv, *partials, *gradient_scratch;
  Operand hidden, dgate_up;
  Bf16 *dx16 = nullptr, *dqkv16 = nullptr;  // roundings
  int64_t size = 0;

  BackwardWork(const cov_model& model, int64_t rows, float* base) {
    const Layout& l = model.layout;
    const int64_t width = l.attention.width();
    const auto take = [&](int64_t floats) {
      float* p = base == nullptr ? nullptr : base + size;
      size += round16(floats);
      return p;
    };
    const auto take16 = [&](int64_t columns) {
      return reinterpret_cast<Bf16*>(take((bf16_size(rows, columns) + 1) / 2));
    };
    dhidden = take(rows * l.f);
    dn = take(rows * l.d);
    dqkv = take(rows * width);
    if (l.compute == Compute::kF32) {
      hidden = {dhidden, nullptr};
      dgate_up = {take(rows * 2 * l.f), nullptr};
    } else {
      hidden = {nullptr, take16(l.f)};
      dgate_up = {nullptr, take16(2 * l.f)};
      dx16 = take16(l.d);
      dqkv16 = take16(width);
    }
    partials = take(rmsnorm_partials_size(rows, l.d));
    gradient_scratch = take(gradient_scratch_size(l.compute, rows, std::max(l.d, l.f),
                                                  model.pool.threads()));
  }
};

}  // namespace

int64_t backward_work_size(const cov_model& model, int64_t rows) {
  return BackwardWork(model, rows, nullptr).size;
}

void backward_layers(cov_model& model, const int32_t* tokens, const int32_t* positions,
                     const Segment* segments, int64_t segment_count, Activations& activations,
                     float* dx, float* work) {
  const Layout& l = model.layout;
  const int64_t rows = activations.rows, d = l.d, f = l.f, width = l.attention.width();
  const int64_t rotated = l.attention.heads + l.attention.kv_heads;
  int64_t longest = 0;
  for (int64_t i = 0; i < segment_count; ++i) longest = std::max(longest, segments[i].count);
  const int64_t scratch_size = attention_backward_scratch_size(l.attention, l.compute, longest);
  float* scratch =
      model.attention_scratch.reserve(model.memory, scratch_size * model.pool.threads());
  const float* p = model.parameters();
  const bool frozen = model.lora != nullptr;  // then only the adapters have gradients
  float* g = frozen ? nullptr : model.state(COV_GRADIENTS);
  ThreadPool& pool = model.pool;
  const BackwardWork b(model, rows, work);
  const auto gain = [&](int64_t offset) { return frozen ? nullptr : g + offset; };
  const auto gradient = [&](Operand dy, Operand x, int64_t n, int64_t k, int64_t offset) {
    if (frozen)
      lora_gradient(*model.lora, offset, dy, x, rows);
    else
      multiply_gradient(pool, l.compute, dy, x, rows, n, k, g + offset, b.gradient_scratch);
  };
  for (int64_t layer = l.layers - 1; layer >= 0; --layer) {
    const Activations::Layer& a = activations.layers[static_cast<size_t>(layer)];
    const PackedWeights::Layer& w = model.backward_weights.layers[static_cast<size_t>(layer)];
    Operand dy = operand(pool, l.compute, dx, rows, d, b.dx16);
    multiply(pool, dy, rows, w.down, nullptr, b.dhidden);
    swiglu_backward(pool, a.gate_up, b.dhidden, rows, f, b.hidden, b.dgate_up);
    gradient(dy, b.hidden, d, f, l.down(layer));
    multiply(pool, b.dgate_up, rows, w.gate_up, nullptr, b.dn);
    gradient(b.dgate_up, a.n2, 2 * f, d, l.gate_up(layer));
    rmsnorm_backward(pool, a.x2, p + l.norm2(layer), a.r2, b.dn, dx, rows, d, dx,
                     gain(l.norm2(layer)), b.partials);
    dy = operand(pool, l.compute, dx, rows, d, b.dx16);
    multiply(pool, dy, rows, w.o, nullptr, b.dn);
    gradient(dy, a.att_operand, d, d, l.o(layer));
    attention_backward(pool, l.attention, l.compute, segments, segment_count,
                       {a.qkv, a.att, a.lse, b.dn, b.dqkv}, scratch, scratch_size);
    rope(pool, b.dqkv, positions, model.cosine.data(), model.sine.data(), rows, width, rotated,
         l.attention.dim, true);
    dy = operand(pool, l.compute, b.dqkv, rows, width, b.dqkv16);
    gradient(dy, a.n1, width, d, l.qkv(layer));
    if (frozen && layer == 0) return;  // nothing below learns
    multiply(pool, dy, rows, w.qkv, nullptr, b.dn);
    rmsnorm_backward(pool, a.x, p + l.norm1(layer), a.r1, b.dn, dx, rows, d, dx,
                     gain(l.norm1(layer)), b.partials);
  }
  embed_backward(pool, dx, tokens, rows, d, g);
}

}  // namespace covenant
