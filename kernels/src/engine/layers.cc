// Forward and backward through the decoder layers:
//   x2 = x + Attention(RMSNorm(x)) Wo^T ;  x' = x2 + SwiGLU(RMSNorm(x2) Wgu^T) Wdown^T
#include <algorithm>
#include <cstring>

#include "engine/gemm.h"
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
  const int64_t per_row = 5 * d + width + 2 + heads + 2 * layout.f;
  const int64_t sets = shared ? 1 : layout.layers;
  capacity_ = 0;
  layers.clear();
  layers.resize(static_cast<size_t>(layout.layers));
  // Each of the ten parts is rounded up to whole cache lines.
  const int64_t set_size = round16(count) * per_row + 10 * 16;
  data.free();
  float* next = data.reserve(memory, sets * set_size + 2 * 16 + round16(count) * (d + layout.f));
  const auto take = [&](int64_t floats) {
    float* p = next;
    next += round16(floats);
    return p;
  };
  for (int64_t i = 0; i < layout.layers; ++i) {
    Layer& layer = layers[static_cast<size_t>(i)];
    if (shared && i > 0) {
      layer = layers[0];
      continue;
    }
    layer = {take(count * d), take(count * d),           take(count),     take(count * width),
             take(count * d), take(count * heads),       take(count * d), take(count * d),
             take(count),     take(count * 2 * layout.f)};
  }
  last = take(count * d);
  hidden = take(count * layout.f);
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
    multiply(pool, a.n1, rows, d, w.qkv, width, nullptr, a.qkv);
    rope(pool, a.qkv, positions, model.cosine.data(), model.sine.data(), rows, width, rotated,
         l.attention.dim, false);
    attention(layer, a.qkv, a.att, a.lse);
    multiply(pool, a.att, rows, d, w.o, d, a.x, a.x2);
    rmsnorm(pool, a.x2, p + l.norm2(layer), model.eps(), rows, d, a.n2, a.r2);
    multiply(pool, a.n2, rows, d, w.gate_up, 2 * l.f, nullptr, a.gate_up);
    swiglu(pool, a.gate_up, rows, l.f, activations.hidden);
    multiply(pool, activations.hidden, rows, l.f, w.down, d, a.x2, next);
  }
}

int64_t backward_work_size(const cov_model& model, int64_t rows) {
  const Layout& l = model.layout;
  return rows * (3 * l.f + l.d + l.attention.width()) + rmsnorm_partials_size(rows, l.d) +
         model.pool.threads() * gradient_scratch_size();
}

void backward_layers(cov_model& model, const int32_t* tokens, const int32_t* positions,
                     const Segment* segments, int64_t segment_count, Activations& activations,
                     float* dx, float* work) {
  const Layout& l = model.layout;
  const int64_t rows = activations.rows, d = l.d, f = l.f, width = l.attention.width();
  const int64_t rotated = l.attention.heads + l.attention.kv_heads;
  int64_t longest = 0;
  for (int64_t i = 0; i < segment_count; ++i) longest = std::max(longest, segments[i].count);
  const int64_t scratch_size = attention_backward_scratch_size(l.attention, longest);
  float* scratch =
      model.attention_scratch.reserve(model.memory, scratch_size * model.pool.threads());
  const float* p = model.parameters();
  float* g = model.state(COV_GRADIENTS);
  ThreadPool& pool = model.pool;
  float* dhidden = work;                 // (rows, f)
  float* dgate_up = dhidden + rows * f;  // (rows, 2 f)
  float* dn = dgate_up + rows * 2 * f;   // (rows, d)
  float* dqkv = dn + rows * d;           // (rows, width)
  float* partials = dqkv + rows * width;
  float* panels = partials + rmsnorm_partials_size(rows, d);
  for (int64_t layer = l.layers - 1; layer >= 0; --layer) {
    const Activations::Layer& a = activations.layers[static_cast<size_t>(layer)];
    const PackedWeights::Layer& w = model.backward_weights.layers[static_cast<size_t>(layer)];
    multiply(pool, dx, rows, d, w.down, f, nullptr, dhidden);
    swiglu_backward(pool, a.gate_up, dhidden, rows, f, dgate_up);  // dhidden now holds h
    multiply_gradient(pool, dx, dhidden, rows, d, f, g + l.down(layer), panels);
    multiply(pool, dgate_up, rows, 2 * f, w.gate_up, d, nullptr, dn);
    multiply_gradient(pool, dgate_up, a.n2, rows, 2 * f, d, g + l.gate_up(layer), panels);
    rmsnorm_backward(pool, a.x2, p + l.norm2(layer), a.r2, dn, dx, rows, d, dx, g + l.norm2(layer),
                     partials);
    multiply(pool, dx, rows, d, w.o, d, nullptr, dn);
    multiply_gradient(pool, dx, a.att, rows, d, d, g + l.o(layer), panels);
    attention_backward(pool, l.attention, segments, segment_count, a.qkv, a.att, a.lse, dn, dqkv,
                       scratch, scratch_size);
    rope(pool, dqkv, positions, model.cosine.data(), model.sine.data(), rows, width, rotated,
         l.attention.dim, true);
    multiply(pool, dqkv, rows, width, w.qkv, d, nullptr, dn);
    multiply_gradient(pool, dqkv, a.n1, rows, width, d, g + l.qkv(layer), panels);
    rmsnorm_backward(pool, a.x, p + l.norm1(layer), a.r1, dn, dx, rows, d, dx, g + l.norm1(layer),
                     partials);
  }
  embed_backward(pool, dx, tokens, rows, d, g);
}

}  // namespace covenant
