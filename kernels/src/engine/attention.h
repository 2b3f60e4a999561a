// Causal grouped-query attention over rows of a fused (q | k | v) matrix:
//   P = softmax(q K^T / sqrt(dim)), o = P V, one row per token.
// A row's result depends only on its own sequence and position, not on how many rows are computed
// together: training, prefill and decode give the same bits.
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

// `count` rows at positions start .. start + count - 1 of a sequence with a cache.
struct CachedSegment {
  int64_t row, count, start;
  float* cache;      // kv_cache_size() floats of one layer
  int64_t capacity;  // positions, a multiple of 32
};

// Floats of one layer's cache: keys as packed panels, values as packed panels.
inline int64_t kv_cache_size(const AttentionShape& shape, int64_t capacity) {
  return shape.kv_heads * capacity * (shape.dim + shape.padded_dim());
}

// Scratch floats of one thread for sequences of up to `length` positions.
int64_t attention_scratch_size(const AttentionShape& shape, int64_t length);
int64_t attention_backward_scratch_size(const AttentionShape& shape, Compute format,
                                        int64_t length);

// out (rows, heads * dim); lse (rows, heads) or null. scratch: size per thread * threads.
void attention(ThreadPool& pool, const AttentionShape& shape, const Segment* segments,
               int64_t segment_count, const float* qkv, float* out, float* lse, float* scratch,
               int64_t scratch_size);

// The matrices of a backward pass over all rows: (q | k | v) and its gradient with row stride
// shape.width(), out and its gradient with row stride shape.query_width(), lse (rows, heads).
struct BackwardRows {
  const float *qkv, *out, *lse, *dout;
  float* dqkv;
};

// rows.dqkv from rows.dout: key-value head `kv` of one segment with the query heads that read it, on
// the thread that asks; writes every element of their columns. In bf16 the products of the backward
// pass have rounded operands; those of the forward pass never have.
void attention_backward(const AttentionShape& shape, Compute format, const BackwardRows& rows,
                        const Segment& segment, int64_t kv, float* scratch);

// Appends the rows' keys and values to their caches, then attends over them.
void attention_cached(ThreadPool& pool, const AttentionShape& shape, const CachedSegment* segments,
                      int64_t segment_count, const float* qkv, float* out, float* scratch,
                      int64_t scratch_size);

}  // namespace covenant
