#include "engine/gemm.cuh"

#include "engine/math.cuh"

namespace covenant::cuda {
namespace {

constexpr int kTile = 64;    // rows and columns of C per block
constexpr int kDepth = 16;   // of A and B in shared memory at once
constexpr int kEach = 4;     // rows and columns of C per thread
constexpr int kSide = kTile / kEach;
constexpr int kThreads = kSide * kSide;
constexpr int kPadded = kTile + 1;  // columns of a shared row: writes along k hit all banks

// tile[l][i] = x(first + i, k + l), zeros outside.
template <typename T>
__device__ void load_tile(float* tile, const T* x, int64_t x_row, int64_t x_k, int64_t first,
                          int64_t rows, int64_t from, int64_t k) {
  for (int at = static_cast<int>(threadIdx.x); at < kTile * kDepth; at += kThreads) {
    // Neighbouring threads read neighbouring elements.
    const int i = x_k == 1 ? at / kDepth : at % kTile;
    const int l = x_k == 1 ? at % kDepth : at / kTile;
    const bool inside = first + i < rows && from + l < k;
    tile[l * kPadded + i] = inside ? get(x + (first + i) * x_row + (from + l) * x_k) : 0.0f;
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads) multiply_kernel(Product p, const T* matrix) {
  __shared__ float tile_a[kDepth * kPadded];
  __shared__ float tile_b[kDepth * kPadded];
  const int64_t inner = blockIdx.z % p.inner;
  const int64_t outer = blockIdx.z / p.inner;
  const float* const a = p.a + inner * p.a_batch.inner + outer * p.a_batch.outer;
  const T* const b = matrix + inner * p.b_batch.inner + outer * p.b_batch.outer;
  const int64_t shift = inner * p.c_batch.inner + outer * p.c_batch.outer;
  const int64_t row = static_cast<int64_t>(blockIdx.y) * kTile;
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kTile;
  const int x = static_cast<int>(threadIdx.x) % kSide;
  const int y = static_cast<int>(threadIdx.x) / kSide;
  float sum[kEach][kEach];
  for (int i = 0; i < kEach; ++i) {
    for (int j = 0; j < kEach; ++j) {
      const int64_t r = row + y + i * kSide;
      const int64_t c = column + x + j * kSide;
      sum[i][j] = p.init != nullptr && r < p.m && c < p.n ? p.init[shift + r * p.c_row + c] : 0.0f;
    }
  }
  for (int64_t from = 0; from < p.k; from += kDepth) {
    load_tile(tile_a, a, p.a_row, p.a_k, row, p.m, from, p.k);
    load_tile(tile_b, b, p.b_column, p.b_k, column, p.n, from, p.k);
    __syncthreads();
    const int depth = p.k - from < kDepth ? static_cast<int>(p.k - from) : kDepth;
    for (int l = 0; l < depth; ++l) {
      float left[kEach];
      float right[kEach];
      for (int i = 0; i < kEach; ++i) left[i] = tile_a[l * kPadded + y + i * kSide];
      for (int j = 0; j < kEach; ++j) right[j] = tile_b[l * kPadded + x + j * kSide];
      for (int i = 0; i < kEach; ++i)
        for (int j = 0; j < kEach; ++j) sum[i][j] = fmaf(left[i], right[j], sum[i][j]);
    }
    __syncthreads();
  }
  for (int i = 0; i < kEach; ++i) {
    for (int j = 0; j < kEach; ++j) {
      const int64_t r = row + y + i * kSide;
      const int64_t c = column + x + j * kSide;
      if (r < p.m && c < p.n) p.c[shift + r * p.c_row + c] = sum[i][j];
    }
  }
}

}  // namespace

void multiply(Stream stream, const Product& p) {
  if (p.m == 0 || p.n == 0) return;
  const dim3 grid(blocks_of(p.n, kTile), blocks_of(p.m, kTile),
                  static_cast<unsigned>(p.inner * p.outer));
  if (p.b16 != nullptr)
    COVENANT_LAUNCH((multiply_kernel<Bf16>), grid, kThreads, 0, stream, p, p.b16);
  else
    COVENANT_LAUNCH((multiply_kernel<float>), grid, kThreads, 0, stream, p, p.b);
}

}  // namespace covenant::cuda
