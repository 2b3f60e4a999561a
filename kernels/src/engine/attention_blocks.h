// What the passes of attention share, forward and backward, in fp32 and in bf16. One task is one key-value head of
// one sequence with all the query heads that read it.
#pragma once

#include <cmath>
#include <cstring>

#include "engine/attention.h"
#include "engine/cut.h"
#include "engine/isa/table.h"

namespace covenant {

constexpr int64_t kQueryBlock = 24;  // rows whose scores are computed together

inline int64_t round32(int64_t n) { return (n + 31) / 32 * 32; }

inline float score_scale(int64_t dim) { return 1.0f / std::sqrt(static_cast<float>(dim)); }

// Panels of V (positions, dim) for products with probabilities.
inline void pack_values(const KernelTable& kernel, const float* v, int64_t count, int64_t dim,
                        int64_t stride, float* out, int64_t panel_stride) {
  for (int64_t c = 0; c < dim; c += kPanel)
    kernel.pack_panel(v + c, dim - c < kPanel ? dim - c : kPanel, count, stride,
                      out + c / kPanel * panel_stride);
}

inline void pack_values_bf16(const KernelTable& kernel, const float* v, int64_t count, int64_t dim,
                             int64_t stride, Bf16* out, int64_t panel_stride) {
  for (int64_t c = 0; c < dim; c += kPanel)
    kernel.pack_panel_bf16(v + c, dim - c < kPanel ? dim - c : kPanel, count, stride,
                           out + c / kPanel * panel_stride);
}

// The columns of a head in a segment's gradient of (q | k | v).
inline Operand gradient_columns(const AttentionShape& shape, const BackwardRows& rows,
                                const Segment& segment, int64_t column) {
  Operand x = rows_from(rows.dqkv, segment.row, shape.width());
  if (x.f32 != nullptr) x.f32 += column;
  if (x.bf16 != nullptr) x.bf16 += column;
  return x;
}

// One key-value head of one segment inside the matrices of a backward pass.
struct KeyHeadView {
  int64_t length;
  const float *keys, *values;  // row stride shape.width()
  Operand dkeys, dvalues;      // likewise, or bf16_row(shape.width())

  KeyHeadView(const AttentionShape& shape, const BackwardRows& rows, const Segment& segment,
              int64_t kv)
      : length(segment.count) {
    const int64_t key = (shape.heads + kv) * shape.dim, value = key + shape.kv_heads * shape.dim;
    const float* const qkv = rows.qkv + segment.row * shape.width();
    keys = qkv + key;
    values = qkv + value;
    dkeys = gradient_columns(shape, rows, segment, key);
    dvalues = gradient_columns(shape, rows, segment, value);
  }
};

// One query head of one segment: q and dq as keys and dkeys, out and dout with row stride
// shape.query_width(), lse with shape.heads.
struct QueryHeadView {
  const float *q, *out, *dout, *lse;
  Operand dq;

  QueryHeadView(const AttentionShape& shape, const BackwardRows& rows, const Segment& segment,
                int64_t head) {
    const int64_t result = segment.row * shape.query_width() + head * shape.dim;
    q = rows.qkv + segment.row * shape.width() + head * shape.dim;
    dq = gradient_columns(shape, rows, segment, head * shape.dim);
    out = rows.out + result;
    dout = rows.dout + result;
    lse = rows.lse + segment.row * shape.heads + head;
  }
};

// Floats of scratch that each pass needs in one format, and one task of it.
int64_t attention_f32_scratch_size(const AttentionShape& shape, int64_t length);
int64_t attention_bf16_scratch_size(const AttentionShape& shape, int64_t length);
int64_t attention_backward_f32_scratch_size(const AttentionShape& shape, int64_t length);
int64_t attention_backward_bf16_scratch_size(const AttentionShape& shape, int64_t length);
void attention_f32(const AttentionShape& shape, const ForwardRows& rows, const Segment& segment,
                   int64_t kv, float* scratch);
void attention_bf16(const AttentionShape& shape, const ForwardRows& rows, const Segment& segment,
                    int64_t kv, float* scratch);
void attention_backward_f32(const AttentionShape& shape, const BackwardRows& rows,
                            const Segment& segment, int64_t kv, float* scratch);
void attention_backward_bf16(const AttentionShape& shape, const BackwardRows& rows,
                             const Segment& segment, int64_t kv, float* scratch);

}  // namespace covenant
