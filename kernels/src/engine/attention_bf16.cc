// attention_f32 with the operands of both products, queries and keys, probabilities and values,
// rounded to bf16 and fp32 sums.
#include <algorithm>

#include "engine/attention_blocks.h"
#include "engine/gemm.h"

namespace covenant {
namespace {

// Scratch of one task, cut from one block; with no block it only counts.
struct Scratch {
  Bf16* keys;           // panels of K^T: [position / 32][dim / 2][32][2]
  Bf16* values;         // panels of V: [dim / 32][positions / 2][32][2]
  Bf16* queries;        // (kQueryBlock, dim), row stride bf16_row(dim)
  float* scores;        // (kQueryBlock, ld)
  Bf16* probabilities;  // (kQueryBlock, ld), row stride bf16_row(ld)
  int64_t ld, dim_padded, floats;

  Scratch(const AttentionShape& shape, int64_t length, float* base) {
    ld = round32(length);
    dim_padded = bf16_padded(shape.dim);
    Cut cut(base);
    keys = cut.take16(ld * dim_padded);
    values = cut.take16(ld * shape.padded_dim());
    queries = cut.take16(kQueryBlock * bf16_row(shape.dim));
    scores = cut.take(kQueryBlock * ld);
    probabilities = cut.take16(kQueryBlock * bf16_row(ld));
    floats = cut.floats();
  }
};

}  // namespace

int64_t attention_bf16_scratch_size(const AttentionShape& shape, int64_t length) {
  return Scratch(shape, length, nullptr).floats;
}

void attention_bf16(const AttentionShape& shape, const ForwardRows& rows, const Segment& segment,
                    int64_t kv, float* scratch) {
  const KernelTable& kernel = kernels();
  const int64_t length = segment.count, dim = shape.dim, width = shape.width();
  const int64_t out_width = shape.query_width();
  const float scale = score_scale(dim);
  const float* const qkv = rows.qkv + segment.row * width;
  const float* const keys = qkv + (shape.heads + kv) * dim;
  const float* const values = keys + shape.kv_heads * dim;
  const Scratch s(shape, length, scratch);
  const int64_t query_row = bf16_row(dim), row_of_p = bf16_row(s.ld);
  kernel.pack_transposed_bf16(keys, length, dim, width, s.keys);
  pack_values_bf16(kernel, values, length, dim, width, s.values, s.ld * kPanel);
  for (int64_t h = kv * shape.group(); h < (kv + 1) * shape.group(); ++h)
    for (int64_t row = 0; row < length; row += kQueryBlock) {
      const int64_t count = std::min(kQueryBlock, length - row), visible = row + count;
      for (int64_t i = 0; i < count; ++i)
        kernel.round_bf16(qkv + (row + i) * width + h * dim, dim, s.dim_padded,
                          s.queries + i * query_row);
      kernel.gemm_bf16(count, visible, s.dim_padded, s.queries, query_row, s.keys,
                       s.dim_padded * kPanel, nullptr, 0, s.scores, s.ld);
      for (int64_t i = 0; i < count; ++i)
        rows.lse[(segment.row + row + i) * shape.heads + h] =
            kernel.softmax_bf16(s.scores + i * s.ld, scale, row + i + 1, round32(visible),
                                s.probabilities + i * row_of_p);
      float* const out = rows.out + (segment.row + row) * out_width + h * dim;
      kernel.gemm_bf16(count, dim, round32(visible), s.probabilities, row_of_p, s.values,
                       s.ld * kPanel, nullptr, 0, out, out_width);
      for (int64_t i = 0; rows.rounded != nullptr && i < count; ++i)
        kernel.round_bf16(
            out + i * out_width, dim, dim,
            rows.rounded + (segment.row + row + i) * bf16_row(out_width) + h * dim);
    }
}

}  // namespace covenant
