// Keys and values of sequences in pages, and attention over them. Tier A: a row's result has the bits that
// attention over the whole sequence gives it on the CPU, whatever rows are computed with it and wherever the
// pages lie.
#pragma once

#include "engine/attention.h"
#include "engine/pages.cuh"

namespace covenant::cuda {

// The rows of a step and one layer of their pages; pointers are on the device.
struct PagedRows {
  AttentionShape shape;
  bool bf16;                 // elements of pages, widened exactly
  int64_t offset;            // of the layer inside a page, in elements
  void* const* pages;        // of all sequences of the step, those of each in order
  const int32_t* first;      // by row: where its sequence begins in `pages`
  const int32_t* positions;  // by row
  int64_t rows;
};

// Positions that a row can look back on: its scores lie in shared memory.
constexpr int64_t kCachePositionsMax = 24000;

// Writes keys and values of each row of (q | k | v) to its position.
void cache_append(Stream stream, const PagedRows& rows, const float* qkv);

// out (rows, heads * dim): each row over positions 0 to its own. `longest` is the largest position + 1, or
// more.
void attention_cached(Stream stream, const PagedRows& rows, const float* qkv, int64_t longest, float* out);

}  // namespace covenant::cuda
