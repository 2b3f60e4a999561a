// Sums over a tile of which each row sees a part, for attention in bf16. What a row does not see does not touch
// it, whatever it is: a weight of zero alone would make NaN of a NaN.
#pragma once

#include "engine/attention_tiles.cuh"

namespace covenant::cuda::tiles {

// The sign bits of both numbers of a pair: set where it is not finite.
__device__ __forceinline__ uint32_t not_finite(uint32_t pair) {
  return ((pair & 0x7f807f80u) + 0x00800080u) & 0x80008000u;
}

// Whether any of the 16 rows of a tile from `row` on is not finite; for the whole warp.
template <int kDim>
__device__ __forceinline__ bool any_not_finite(const Bf16* tile, int row) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const auto* const x = reinterpret_cast<const uint32_t*>(tile + (row + lane / 2) * kStride<kDim>) +
                        lane % 2 * (kDim / 4);
  uint32_t found = 0;
#pragma unroll
  for (int i = 0; i < kDim / 4; ++i) found |= not_finite(x[i]);
  return __any_sync(0xffffffffu, found != 0);
}

// c (16, kDim) += a (16, 16) times rows [row, row + 16) of y, of which row i of c sees those up to i. Where it
// sees a number that is not finite, c becomes NaN.
template <int kDim>
__device__ __forceinline__ void weigh_not_finite(float (&c)[kDim / 8][4], const uint32_t (&a)[4],
                                                 const Bf16* y, int row) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  uint32_t sees[4];
#pragma unroll
  for (int part = 0; part < 4; ++part) {
    const int mine = lane / 4 + part % 2 * 8;
    const int theirs = lane % 4 * 2 + part / 2 * 8;
    sees[part] = (theirs <= mine ? 0x3f80u : 0u) | (theirs + 1 <= mine ? 0x3f800000u : 0u);
  }
#pragma unroll
  for (int j = 0; j < kDim / 16; ++j) {
    uint32_t b[2][2];
    right<kDim, true>(b, y, 16 * j, row);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      uint32_t marks[2];
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const uint32_t bad = not_finite(b[half][e]) >> 15;  // 1 in each half
        marks[e] = bad * 0x3f80u;
        b[half][e] &= ~(bad * 0xffffu);
      }
      float count[4] = {};
      mma_bf16(count, sees, marks);
      float(&sum)[4] = c[2 * j + half];
      mma_bf16(sum, a, b[half]);
#pragma unroll
      for (int e = 0; e < 4; ++e)
        if (count[e] > 0.0f) sum[e] = kInfinity - kInfinity;
    }
  }
}

// As weigh, where the 16 rows of c are those of part `own` of the tile, in 16s, or of a later tile: they see the
// parts before, and of their own each row the rows up to itself.
template <int kDim, int kCount>
__device__ __forceinline__ void weigh_seen(float (&c)[kDim / 8][4], const float (&w)[kCount / 8][4],
                                           const Bf16* y, int own) {
  constexpr int kParts = kCount / 16;
  const bool guarded = own >= 0 && own < kParts && any_not_finite<kDim>(y, 16 * own);
#pragma unroll
  for (int k = 0; k < kParts; ++k)
    if (k < own || (k == own && !guarded)) weigh_part<kDim>(c, w[2 * k], w[2 * k + 1], y, 16 * k);
  if (!guarded) return;
  uint32_t mine[4] = {};
#pragma unroll
  for (int k = 0; k < kParts; ++k)
    if (k == own) left_of(mine, w[2 * k], w[2 * k + 1]);
  weigh_not_finite<kDim>(c, mine, y, 16 * own);
}

}  // namespace covenant::cuda::tiles
