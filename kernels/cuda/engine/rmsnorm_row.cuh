// RMSNorm of one row by a whole block: for few rows, where what takes long is to wait for memory. The row lies in
// shared memory, half a warp adds up its squares in the order of the CPU.
#pragma once

#include "engine/math.cuh"

namespace covenant::cuda {

constexpr int kNormRowThreads = 256;
constexpr int64_t kNormRowsFew = 256;
constexpr int64_t kNormRowMax = 47 << 8;  // elements: 47 KiB of shared memory

// Copies the row to `staged` (d floats of shared memory) and gives 1 / sqrt(mean(x^2) + eps) to all threads.
__device__ __forceinline__ float stage_row(const float* x, int64_t d, float eps, float* staged) {
  __shared__ float scale;
  for (int64_t i = threadIdx.x; i < d; i += kNormRowThreads) staged[i] = x[i];
  __syncthreads();
  if (threadIdx.x < 32) {
    float sum = 0.0f;
    if (threadIdx.x < kHalf) {
#pragma unroll 8
      for (int64_t i = threadIdx.x; i < d; i += kHalf) sum = fmaf(staged[i], staged[i], sum);
    }
    sum = half_sum(sum);
    if (threadIdx.x == 0) scale = 1.0f / sqrtf(sum / static_cast<float>(d) + eps);
  }
  __syncthreads();
  return scale;
}

}  // namespace covenant::cuda
