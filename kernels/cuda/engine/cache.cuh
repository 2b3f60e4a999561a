// Keys and values of sequences that are being generated, and attention over them. Tier A: a row's result
// has the bits that attention over the whole sequence gives it, whatever rows are computed with it.
#pragma once

#include "engine/attention.h"
#include "runtime/device.h"

namespace covenant::cuda {

// One layer of it: for each slot `capacity` positions of (keys | values).
struct CacheLayer {
  AttentionShape shape;
  float* data;
  int64_t capacity;
  int64_t position_size() const { return 2 * shape.kv_heads * shape.dim; }
};

// Positions that a row can look back on: its scores lie in shared memory.
constexpr int64_t kCachePositionsMax = 24000;

// Copies keys and values of each row of (q | k | v) to slots[row], positions[row].
void cache_append(Stream stream, const CacheLayer& cache, const float* qkv, const int32_t* slots,
                  const int32_t* positions, int64_t rows);

// out (rows, heads * dim): each row over positions 0 to positions[row] of its slot. `longest` is the
// largest position + 1.
void attention_cached(Stream stream, const CacheLayer& cache, const float* qkv, const int32_t* slots,
                      const int32_t* positions, int64_t rows, int64_t longest, float* out);

}  // namespace covenant::cuda
