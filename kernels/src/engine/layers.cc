// Forward through the decoder layers:
//   x2 = x + Attention(RMSNorm(x)) Wo^T ;  x' = x2 + SwiGLU(RMSNorm(x2) Wgu^T) Wdown^T
#include <algorithm>
#include <cstring>

#include "engine/cut.h"
#include "engine/gemm.h"
#include "engine/lora.h"
#include "engine/model.h"
#include "engine/rowwise.h"

namespace covenant {

void Activations::reserve(Memory& memory, const Layout& layout, int64_t count, bool shared) {
  rows = count;
  if (count <= capacity_ && shared == shared_) return;
  const int64_t d = layout.d, width = layout.attention.width(), heads = layout.attention.heads;
  capacity_ = 0;
  layers.clear();
  layers.resize(static_cast<size_t>(layout.layers));
  data.free();
  const auto lay_out = [&](float* base) {
    Cut cut(base);
    const auto operand_of = [&](int64_t columns) -> Operand {
      if (layout.compute == Compute::kF32) return {cut.take(count * columns), nullptr};
      return {nullptr, cut.take16(bf16_size(count, columns))};
    };
    for (size_t i = 0; i < layers.size(); ++i) {
      Layer& layer = layers[i];
      if (shared && i > 0) {
        layer = layers[0];
        continue;
      }
      layer.x = cut.take(count * d);
      layer.r1 = cut.take(count);
      layer.qkv = cut.take(count * width);
      layer.att = cut.take(count * d);
      layer.lse = cut.take(count * heads);
      layer.x2 = cut.take(count * d);
      layer.r2 = cut.take(count);
      layer.gate_up = cut.take(count * 2 * layout.f);
      layer.n1 = operand_of(d);
      layer.n2 = operand_of(d);
      layer.att_operand =
          layout.compute == Compute::kF32 ? Operand{layer.att, nullptr} : operand_of(d);
    }
    last = cut.take(count * d);
    hidden = operand_of(layout.f);
    return cut.floats();
  };
  // Sizes first, with no memory behind them, then the same again for good.
  lay_out(data.reserve(memory, lay_out(nullptr)));
  capacity_ = count;
  shared_ = shared;
}

namespace {

// What rows go through between two attentions. One thread takes a block of them through all of it,
// so that what an operation leaves is still in its caches for the next.
struct BetweenAttentions {
  cov_model& model;
  const Activations& activations;
  const int32_t* positions;

  const Activations::Layer& activations_of(int64_t layer) const {
    return activations.layers[static_cast<size_t>(layer)];
  }
  const PackedWeights::Layer& weights_of(int64_t layer) const {
    return model.forward_weights.layers[static_cast<size_t>(layer)];
  }

  // From x of `layer` to its (q | k | v).
  void before_attention(int64_t layer, RowRange range) const {
    const Layout& l = model.layout;
    const Activations::Layer& a = activations_of(layer);
    rmsnorm(a.x, model.parameters() + l.norm1(layer), model.eps(), l.d, a.n1, a.r1, range);
    multiply_rows(a.n1, range.first, range.count(), weights_of(layer).qkv, nullptr, a.qkv);
    rope(a.qkv, positions, model.cosine.data(), model.sine.data(), l.attention.width(),
         l.attention.heads + l.attention.kv_heads, l.attention.dim, range);
  }

  // From the attention of `layer` to x of the next, or to the input of the final norm.
  void after_attention(int64_t layer, RowRange range) const {
    const Layout& l = model.layout;
    const Activations::Layer& a = activations_of(layer);
    const PackedWeights::Layer& w = weights_of(layer);
    float* const next = layer + 1 < l.layers ? activations_of(layer + 1).x : activations.last;
    multiply_rows(a.att_operand, range.first, range.count(), w.o, a.x, a.x2);
    rmsnorm(a.x2, model.parameters() + l.norm2(layer), model.eps(), l.d, a.n2, a.r2, range);
    multiply_rows(a.n2, range.first, range.count(), w.gate_up, nullptr, a.gate_up);
    swiglu(a.gate_up, l.f, activations.hidden, range);
    multiply_rows(activations.hidden, range.first, range.count(), w.down, a.x2, next);
  }
};

}  // namespace

void forward_layers(cov_model& model, const int32_t* tokens, const int32_t* positions,
                    const Segment* segments, int64_t segment_count, Activations& activations) {
  const Layout& l = model.layout;
  const RowBlocks blocks(model.pool, activations.rows);
  const BetweenAttentions rows{model, activations, positions};
  const bool large = activations.rows * l.layer_size > kOneThreadProduct;
  const AttentionShape& shape = l.attention;
  int64_t longest = 0;
  for (int64_t i = 0; i < segment_count; ++i) longest = std::max(longest, segments[i].count);
  const int64_t scratch_size = attention_scratch_size(shape, l.compute, longest);
  float* const scratch =
      model.attention_scratch.reserve(model.memory, scratch_size * model.pool.threads());
  const auto range = [&](int64_t block) -> RowRange {
    return {blocks.first(block), blocks.first(block + 1)};
  };
  model.pool.run(
      blocks.count,
      [&](int64_t block) {
        embed(model.parameters(), tokens, l.d, rows.activations_of(0).x, range(block));
        rows.before_attention(0, range(block));
      },
      large);
  for (int64_t layer = 0; layer < l.layers; ++layer) {
    const Activations::Layer& a = rows.activations_of(layer);
    clear_padding(a.att_operand, activations.rows, l.d);
    model.pool.run(segment_count * shape.kv_heads, [&](int64_t task) {
      attention(shape, l.compute, {a.qkv, a.att, a.lse, a.att_operand.bf16},
                segments[task / shape.kv_heads], task % shape.kv_heads,
                scratch + ThreadPool::worker() * scratch_size);
    });
    model.pool.run(
        blocks.count,
        [&](int64_t block) {
          rows.after_attention(layer, range(block));
          if (layer + 1 < l.layers) rows.before_attention(layer + 1, range(block));
        },
        large);
  }
}

}  // namespace covenant
