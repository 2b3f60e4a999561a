// Norm of what an update sends of one tensor.
#pragma once

#include <cstdint>

#include "sparse/layout.h"
#include "sparse/levels.h"

namespace covenant::sparse {

// How often each magnitude P(z) occurs: counts[z - first]. A chunk has two magnitudes, 2L + low and
// 2L + high, and its scale L is at most 254 below the top scale.
struct MagnitudeCounts {
  static constexpr int32_t kCounts = 2 * 254 + 2 * (255 - kLevelBias) + 1;
  int32_t first = 0;
  uint64_t counts[kCounts] = {};
};

// Of a validated tensor of `length` values that starts at `bytes`.
void count_magnitudes(const uint8_t* bytes, uint64_t length, cov_sparse_format format,
                      MagnitudeCounts& counts);

// sqrt(sum of count·P(z)²), z ascending, in fp64. Depends on the counts alone, so it can be taken
// over chunks in any order.
double norm_of(const MagnitudeCounts& counts);

}  // namespace covenant::sparse
