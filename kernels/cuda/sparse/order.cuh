// A chunk spread over a block of 256 threads, 16 values each.
#pragma once

#include "sparse/chunk.cuh"

namespace covenant::cuda {

constexpr uint32_t kBlock = 256;
constexpr uint32_t kBlockWarps = kBlock / 32;
constexpr int kOwned = 16;  // values of a thread
constexpr int kGroups = 4;  // of four neighbouring values

static_assert(kBlock * kOwned == COV_SPARSE_CHUNK);
static_assert(kGroups * kBlockWarps == 32);

// Value `i` of a thread has index 1024·(i / 4) + 4·thread + i mod 4 in its chunk.
__device__ __forceinline__ uint32_t index_of(int i) {
  return 1024u * static_cast<uint32_t>(i / 4) + 4u * threadIdx.x + static_cast<uint32_t>(i % 4);
}

// Where the set bits of the threads' masks (bit i: value i) stand in order of index: `places[j]` for
// the first one in group j of this thread. `counts` is shared memory. Returns how many there are.
__device__ __forceinline__ uint32_t place_in_order(uint32_t mask, uint32_t counts[32],
                                                   uint32_t places[kGroups]) {
  const uint32_t lane = threadIdx.x % 32;
  const uint32_t warp = threadIdx.x / 32;
  // Counts of the four groups side by side; a warp has at most 128 in each.
  uint32_t packed = 0;
#pragma unroll
  for (int j = 0; j < kGroups; ++j)
    packed |= static_cast<uint32_t>(__popc(mask >> (4 * j) & 15u)) << (8 * j);
  const uint32_t inclusive = warp_prefix(packed);
  const uint32_t exclusive = inclusive - packed;
  __syncthreads();
  if (lane == 31) {
#pragma unroll
    for (uint32_t j = 0; j < kGroups; ++j)
      counts[j * kBlockWarps + warp] = inclusive >> (8 * j) & 255u;
  }
  __syncthreads();
  const uint32_t count = counts[lane];
  const uint32_t before = warp_prefix(count);
#pragma unroll
  for (uint32_t j = 0; j < kGroups; ++j) {
    const uint32_t first =
        __shfl_sync(kFullMask, before - count, static_cast<int>(j * kBlockWarps + warp));
    places[j] = first + (exclusive >> (8 * j) & 255u);
  }
  return __shfl_sync(kFullMask, before, 31);
}

}  // namespace covenant::cuda
