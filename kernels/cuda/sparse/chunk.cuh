// Finding one's chunk, and sums over the threads of a block.
#pragma once

#include "runtime/platform.h"
#include "sparse/plan.h"

namespace covenant::cuda {

constexpr uint32_t kFullMask = 0xffffffffu;
// Scales are kept with this added, so that cleared memory means "sends nothing".
constexpr int32_t kScaleBias = 2048;

// The last tensor whose `first` is at or before `at`.
__device__ __forceinline__ int32_t last_tensor_from(const SparsePlan& plan,
                                                    uint32_t TensorPlan::*first, uint32_t at) {
  int32_t low = 0;
  int32_t high = plan.tensor_count - 1;
  while (low < high) {
    const int32_t middle = (low + high + 1) / 2;
    if (plan.tensors[middle].*first <= at)
      low = middle;
    else
      high = middle - 1;
  }
  return low;
}

// The tensor of a chunk. Empty tensors hold no chunk.
__device__ __forceinline__ int32_t tensor_of(const SparsePlan& plan, uint32_t chunk) {
  return last_tensor_from(plan, &TensorPlan::first_chunk, chunk);
}

// The same for a sampled chunk.
__device__ __forceinline__ int32_t tensor_of_sample(const SparsePlan& plan, uint32_t sample) {
  return last_tensor_from(plan, &TensorPlan::first_sample, sample);
}

// Shape of chunk `own` of a tensor.
__device__ __forceinline__ ChunkShape shape_of_chunk(const SparsePlan& plan,
                                                     const TensorPlan& tensor, uint32_t own) {
  // By value: a reference to either would put the plan into local memory.
  if (own + 1 == tensor.chunks) return tensor.last;
  return plan.full;
}

// 0 sends nothing, 255 is the top scale. Both arguments are biased.
__device__ __forceinline__ int32_t scale_code(int32_t top, int32_t scale) {
  if (scale == 0) return 0;
  const int32_t code = 255 - (top - scale);
  return code > 0 ? code : 0;
}

// Inclusive prefix sum over the lanes of a warp.
__device__ __forceinline__ uint32_t warp_prefix(uint32_t value) {
  const uint32_t lane = threadIdx.x % 32;
#pragma unroll
  for (uint32_t step = 1; step < 32; step *= 2) {
    const uint32_t other = __shfl_up_sync(kFullMask, value, step);
    if (lane >= step) value += other;
  }
  return value;
}

}  // namespace covenant::cuda
