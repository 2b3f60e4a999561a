// Attention as blocks of matrix products: scores, softmax per row, weighted values.
#include <algorithm>

#include "engine/attention_blocks.h"

namespace covenant {
namespace {

// Scratch of one task, cut from one block; with no block it only counts.
struct Scratch {
  float* keys;    // panels of K^T: [position / 32][dim][32]
  float* values;  // panels of V: [dim / 32][positions][32]
  float* scores;  // (kQueryBlock, ld)
  int64_t ld, floats;

  Scratch(const AttentionShape& shape, int64_t length, float* base) {
    ld = round32(length);
    Cut cut(base);
    keys = cut.take(ld * shape.dim);
    values = cut.take(ld * shape.padded_dim());
    scores = cut.take(kQueryBlock * ld);
    floats = cut.floats();
  }
};

}  // namespace

int64_t attention_f32_scratch_size(const AttentionShape& shape, int64_t length) {
  return Scratch(shape, length, nullptr).floats;
}

void attention_f32(const AttentionShape& shape, const ForwardRows& rows, const Segment& segment,
                   int64_t kv, float* scratch) {
  const KernelTable& kernel = kernels();
  const int64_t length = segment.count, dim = shape.dim, width = shape.width();
  const float scale = score_scale(dim);
  const float* const qkv = rows.qkv + segment.row * width;
  const float* const keys = qkv + (shape.heads + kv) * dim;
  const Scratch s(shape, length, scratch);
  kernel.pack_transposed(keys, length, dim, width, s.keys);
  pack_values(kernel, keys + shape.kv_heads * dim, length, dim, width, s.values, s.ld * kPanel);
  for (int64_t h = kv * shape.group(); h < (kv + 1) * shape.group(); ++h)
    for (int64_t row = 0; row < length; row += kQueryBlock) {
      const int64_t count = std::min(kQueryBlock, length - row), visible = row + count;
      kernel.gemm(count, visible, dim, qkv + row * width + h * dim, width, 1, s.keys, dim * kPanel,
                  nullptr, 0, s.scores, s.ld);
      for (int64_t i = 0; i < count; ++i) {
        float* const p = s.scores + i * s.ld;
        rows.lse[(segment.row + row + i) * shape.heads + h] =
            kernel.softmax(p, scale, row + i + 1, visible, p);
      }
      kernel.gemm(count, dim, visible, s.scores, s.ld, 1, s.values, s.ld * kPanel, nullptr, 0,
                  rows.out + (segment.row + row) * shape.query_width() + h * dim,
                  shape.query_width());
    }
}

int64_t attention_scratch_size(const AttentionShape& shape, Compute format, int64_t length) {
  return format == Compute::kF32 ? attention_f32_scratch_size(shape, length)
                                 : attention_bf16_scratch_size(shape, length);
}

void attention(const AttentionShape& shape, Compute format, const ForwardRows& rows,
               const Segment& segment, int64_t kv, float* scratch) {
  const auto forward = format == Compute::kF32 ? attention_f32 : attention_bf16;
  forward(shape, rows, segment, kv, scratch);
}

}  // namespace covenant
