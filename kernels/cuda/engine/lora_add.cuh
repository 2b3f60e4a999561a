// W' = W + s B A. Tier A: one chain of products and sums over the ranks in order, as on the CPU.
#pragma once

#include <cstdint>

#include "runtime/device.h"

namespace covenant::cuda {

// An (n, k) matrix with A (rank, k) and B (n, rank).
struct LowRank {
  int64_t n, k, rank;
  const float *a, *b;
  float scale;
};

// to = w + s B A; may be w.
void add_low_rank(Stream stream, const LowRank& adapter, const float* w, float* to);
// The same, rounded.
void add_low_rank(Stream stream, const LowRank& adapter, const float* w, uint16_t* to);

}  // namespace covenant::cuda
