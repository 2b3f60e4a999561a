// Forward through the decoder layers:
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
         l.attention.dim);
    attention(layer, a.qkv, a.att, a.lse);
    operand(pool, l.compute, a.att, rows, d, a.att_operand.bf16);
    multiply(pool, a.att_operand, rows, w.o, a.x, a.x2);
    rmsnorm(pool, a.x2, p + l.norm2(layer), model.eps(), rows, d, a.n2, a.r2);
    multiply(pool, a.n2, rows, w.gate_up, nullptr, a.gate_up);
    swiglu(pool, a.gate_up, rows, l.f, activations.hidden);
    multiply(pool, activations.hidden, rows, w.down, a.x2, next);
  }
}

}  // namespace covenant
