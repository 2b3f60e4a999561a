// How products in bf16 write what a thread has of their sums.
#pragma once

#include "engine/gemm_bf16.cuh"
#include "engine/mma.cuh"

namespace covenant::cuda {

constexpr int kVector = 8;  // elements of one copy to shared memory

// Two neighbouring numbers of a row, the second only below `end`; in one access where rows are even.
__device__ __forceinline__ void put_pair(Bf16* row, int64_t column, int64_t end, bool even, float x,
                                         float y) {
  if (even) {
    *reinterpret_cast<uint32_t*>(row + column) = pair_bf16(x, y);
  } else {
    row[column] = to_bf16(x);
    if (column + 1 < end) row[column + 1] = to_bf16(y);
  }
}

__device__ __forceinline__ void put_sums(const ProductBf16& p, int64_t row, int64_t column, float x,
                                         float y) {
  const int64_t at = row * p.n + column;
  if (p.rounded != nullptr) {
    put_pair(p.rounded + row * p.n, column, p.n, p.n % 2 == 0, x, y);
  } else if (p.n % 2 == 0) {
    float2 before = make_float2(0.0f, 0.0f);
    if (p.init != nullptr) before = *reinterpret_cast<const float2*>(p.init + at);
    *reinterpret_cast<float2*>(p.c + at) = make_float2(x + before.x, y + before.y);
  } else {
    p.c[at] = x + (p.init == nullptr ? 0.0f : p.init[at]);
    if (column + 1 < p.n) p.c[at + 1] = y + (p.init == nullptr ? 0.0f : p.init[at + 1]);
  }
}

}  // namespace covenant::cuda
