// A chunk that keeps 64 of 4096 values, read by four lanes, eight chunks a warp. A lane's quarter is
// 16 low parts (three words), 32 bits of the bitmap and 16 values (a word at most), so everything
// about a chunk is said with a few instructions of each lane.
#pragma once

#include "sparse/body.cuh"

namespace covenant::cuda {

constexpr int32_t kQuarteredKept = 64;
constexpr uint32_t kQuarterLanes = 4;
constexpr uint32_t kQuarteredChunks = 32 / kQuarterLanes;  // of a warp

static_assert(sparse::kLowBits == 6);

// True if chunks of this shape can be read so.
__device__ __host__ __forceinline__ bool quartered(const ChunkShape& shape) {
  return shape.n == COV_SPARSE_CHUNK && shape.kept == kQuarteredKept;
}

struct Quarter {
  uint32_t code;    // of the chunk
  uint32_t low[3];  // 16 low parts of 6 bits
  uint32_t bitmap;
  uint32_t values;  // 16 values of `mode` bits

  __device__ __forceinline__ uint32_t low_part(int i) const {
    const int word = 6 * i / 32;
    const int shift = 6 * i % 32;
    const uint32_t next = word < 2 ? low[word + 1] : 0u;
    return (shift <= 26 ? low[word] >> shift : __funnelshift_r(low[word], next, shift)) & 63u;
  }
};

// Little-endian words at any address, by reading the aligned words that hold them and no other.
template <int kWords>
__device__ __forceinline__ void load_words(const uint8_t* at, uint32_t* words) {
  const auto address = reinterpret_cast<uintptr_t>(at);
  const auto* const aligned = reinterpret_cast<const uint32_t*>(address & ~uintptr_t{3});
  const auto shift = static_cast<uint32_t>(address & 3) * 8;
  uint32_t word = __ldg(aligned);
#pragma unroll
  for (int i = 0; i < kWords; ++i) {
    const bool within = i + 1 == kWords && shift == 0;
    const uint32_t next = __ldg(aligned + (within ? i : i + 1));
    words[i] = __funnelshift_r(word, next, shift);
    word = next;
  }
}

// The lane's quarter of the chunk at `at`.
__device__ __forceinline__ Quarter load_quarter(const uint8_t* at, uint32_t mode) {
  constexpr uint32_t kLowBytes = kQuarteredKept * sparse::kLowBits / 8;
  const uint32_t lane = threadIdx.x % kQuarterLanes;
  Quarter quarter;
  quarter.code = __ldg(at);
  load_words<3>(at + 1 + 12 * lane, quarter.low);
  load_words<1>(at + 1 + kLowBytes + 4 * lane, &quarter.bitmap);
  const uint8_t* const values = at + 1 + kLowBytes + 16;
  if (mode == 2) {
    load_words<1>(values + 4 * lane, &quarter.values);
  } else {
    load_words<1>(values + 4 * (lane / 2), &quarter.values);
    quarter.values = quarter.values >> (16 * (lane % 2)) & 0xffffu;
  }
  return quarter;
}

// The sum over the four lanes of a chunk, and over those before this one.
__device__ __forceinline__ uint32_t quarter_sum(uint32_t value, uint32_t& before) {
  const uint32_t lane = threadIdx.x % kQuarterLanes;
  const uint32_t one = __shfl_up_sync(kFullMask, value, 1, kQuarterLanes);
  uint32_t inclusive = value + (lane >= 1 ? one : 0u);
  const uint32_t two = __shfl_up_sync(kFullMask, inclusive, 2, kQuarterLanes);
  inclusive += lane >= 2 ? two : 0u;
  before = inclusive - value;
  return __shfl_sync(kFullMask, inclusive, kQuarterLanes - 1, kQuarterLanes);
}

}  // namespace covenant::cuda
