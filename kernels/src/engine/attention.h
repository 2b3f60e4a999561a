// Causal grouped-query attention over rows of a fused (q | k | v) matrix:
//   P = softmax(q K^T / sqrt(dim)), o = P V, one row per token.
// A row's result depends only on its own sequence and position, not on how many rows are computed
// together.
#pragma once

#include <cstdint>

#include "engine/gemm.h"

namespace covenant {

struct AttentionShape {
  int64_t heads, kv_heads, dim;
  int64_t group() const { return heads / kv_heads; }
  int64_t query_width() const { return heads * dim; }
  int64_t width() const { return (heads + 2 * kv_heads) * dim; }  // row stride of (q | k | v)
  int64_t padded_dim() const { return (dim + 31) / 32 * 32; }
};

// `count` consecutive rows that form one sequence from position 0.
struct Segment {
  int64_t row, count;
};

// Scratch floats of one task on a sequence of `length` positions.
int64_t attention_scratch_size(const AttentionShape& shape, Compute format, int64_t length);
int64_t attention_backward_scratch_size(const AttentionShape& shape, Compute format,
                                        int64_t length);

// The matrices of a forward pass over all rows: (q | k | v) with row stride shape.width(), out with
// row stride shape.query_width(), lse (rows, heads): log of the sum of each row's exponentials;
// rounded: out as a bf16 operand, unless that is null, without the zeros behind its columns.
struct ForwardRows {
  const float* qkv;
  float *out, *lse;
  Bf16* rounded;
};

// The results for key-value head `kv` of one segment with the query heads that read it, on the
// thread that asks. In bf16 the operands of both products are rounded, as those of the backward pass.
void attention(const AttentionShape& shape, Compute format, const ForwardRows& rows,
               const Segment& segment, int64_t kv, float* scratch);

// The matrices of a backward pass over all rows: (q | k | v) after the rotation with row stride
// shape.width(), out and its gradient with row stride shape.query_width(), lse (rows, heads); the
// rotary table (positions, dim / 2) and the gradient of (q | k | v) before the rotation.
struct BackwardRows {
  const float *qkv, *out, *lse, *dout, *cosine, *sine;
  Operand dqkv;
};

// rows.dqkv from rows.dout, likewise; writes every element of the heads' columns, not what is
// behind them.
void attention_backward(const AttentionShape& shape, Compute format, const BackwardRows& rows,
                        const Segment& segment, int64_t kv, float* scratch);

}  // namespace covenant
