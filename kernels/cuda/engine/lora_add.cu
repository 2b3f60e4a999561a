#include "engine/lora_add.cuh"

#include "engine/math.cuh"

namespace covenant::cuda {
namespace {

constexpr int kColumns = 256;  // of a block, one a thread
constexpr int kRows = 16;      // of a block: A is read once for all of them
constexpr int kRanks = 32;     // of s B in shared memory at once

template <typename T>
__global__ void __launch_bounds__(kColumns) add_kernel(LowRank m, const float* w, T* to) {
  alignas(16) __shared__ float factors[kRanks * kRows];  // of all rows beside each other
  const int64_t row = static_cast<int64_t>(blockIdx.y) * kRows;
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kColumns + threadIdx.x;
  const bool live = column < m.k;
  float sum[kRows];
#pragma unroll
  for (int i = 0; i < kRows; ++i)
    sum[i] = live && row + i < m.n ? w[(row + i) * m.k + column] : 0.0f;
  for (int64_t from = 0; from < m.rank; from += kRanks) {
    const int ranks = m.rank - from < kRanks ? static_cast<int>(m.rank - from) : kRanks;
    for (int at = static_cast<int>(threadIdx.x); at < kRows * kRanks; at += kColumns) {
      const int i = at % kRows, r = at / kRows;
      factors[at] = row + i < m.n && r < ranks ? m.scale * m.b[(row + i) * m.rank + from + r] : 0.0f;
    }
    __syncthreads();
    for (int r = 0; r < ranks; ++r) {
      const float a = live ? m.a[(from + r) * m.k + column] : 0.0f;
#pragma unroll
      for (int i = 0; i < kRows; ++i) sum[i] += factors[r * kRows + i] * a;
    }
    __syncthreads();
  }
  if (!live) return;
#pragma unroll
  for (int i = 0; i < kRows; ++i)
    if (row + i < m.n) put(to + (row + i) * m.k + column, sum[i]);
}

template <typename T>
void launch(Stream stream, const LowRank& m, const float* w, T* to) {
  // Bands of rows go into the second dimension, which has room for 65535 of them.
  constexpr int64_t kBand = int64_t{65535} * kRows;
  for (int64_t first = 0; first < m.n; first += kBand) {
    LowRank part = m;
    part.n = m.n - first < kBand ? m.n - first : kBand;
    part.b = m.b + first * m.rank;
    const dim3 grid(blocks_of(m.k, kColumns), blocks_of(part.n, kRows));
    COVENANT_LAUNCH((add_kernel<T>), grid, kColumns, 0, stream, part, w + first * m.k,
                    to + first * m.k);
  }
}

}  // namespace

void add_low_rank(Stream stream, const LowRank& m, const float* w, float* to) {
  launch(stream, m, w, to);
}

void add_low_rank(Stream stream, const LowRank& m, const float* w, uint16_t* to) {
  launch(stream, m, w, to);
}

}  // namespace covenant::cuda
