#include "engine/gemm_bf16.cuh"

#include "engine/copy_async.cuh"
#include "engine/gemm_bf16_few.cuh"
#include "engine/gemm_bf16_put.cuh"
#include "engine/mma.cuh"

namespace covenant::cuda {
namespace {

// A block makes 256 x 128 of C in 8 warps of 64 x 64. Four tiles of 32 of k are under way: 96 KiB.
constexpr int kRows = 256;
constexpr int kColumns = 128;
constexpr int kDepth = 32;
constexpr int kStages = 4;
constexpr int kThreads = 256;
constexpr int kWarpSide = 64;
constexpr unsigned kBandRows = 8;  // tiles below each other that blocks visit first: they share columns of B

struct Stage {
  Bf16 a[kRows * kDepth];
  Bf16 b[kColumns * kDepth];
};

struct Shared {
  Stage stages[kStages];
};

// Where 8 elements from (row, k) on lie in a tile. The order of the pieces of a line changes with the line,
// so that the eight rows of a matrix hit all banks.
template <bool kAlongK, int kCount>
__device__ __forceinline__ int place(int row, int k) {
  if constexpr (kAlongK)
    return row * kDepth + ((k / kVector) ^ (row / 2 % 4)) * kVector;
  else
    return k * kCount + ((row / kVector) ^ (k % 8)) * kVector;
}

// Row of B's matrix for a column of the tile: with a gate, 8 columns of it alternate with 8 of up, so that
// one thread has both.
template <bool kGated>
__device__ __forceinline__ int64_t line_of(int64_t first, int row, int64_t half) {
  if constexpr (!kGated) return first + row;
  const int64_t column = first / 2 + row / 16 * 8 + row % 8;
  // Outside everything when it is outside the gate.
  return column >= half ? 2 * half : row / 8 % 2 == 0 ? column : half + column;
}

// Brings rows [first, first + kCount) and k [from, from + kDepth); zeros outside. Ends with copies under
// way, unless the operand is too narrow for them.
template <bool kAlongK, bool kWide, bool kGated, int kCount>
__device__ __forceinline__ void bring(Bf16* tile, const Side& x, int64_t first, int64_t rows,
                                      int64_t from, int64_t depth) {
#pragma unroll
  for (int at = static_cast<int>(threadIdx.x); at < kCount * kDepth / kVector; at += kThreads) {
    const int row = kAlongK ? at / (kDepth / kVector) : at % (kCount / kVector) * kVector;
    const int k = kAlongK ? at % (kDepth / kVector) * kVector : at / (kCount / kVector);
    const int64_t line = kAlongK ? line_of<kGated>(first, row, rows / 2) : from + k;
    const int64_t lines = kAlongK ? rows : depth;
    const int64_t along = kAlongK ? from + k : first + row;
    const int64_t end = kAlongK ? depth : rows;
    Bf16* const to = tile + place<kAlongK, kCount>(row, k);
    if constexpr (kWide) {
      // Strides and ends are multiples of 8: a piece lies inside or outside as a whole.
      const bool inside = line < lines && along < end;
      copy_async_16(to, x.data + (inside ? line * x.stride + along : 0), inside);
    } else {
      for (int e = 0; e < kVector; ++e)
        to[e] = line < lines && along + e < end ? x.data[line * x.stride + along + e] : Bf16{0};
    }
  }
}

template <bool kAlongK>
__device__ __forceinline__ void left(uint32_t (&a)[4], const Bf16* tile, int row, int k) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  if constexpr (kAlongK)
    load_matrices<false>(a, tile + place<true, kRows>(row + lane % 16, k + lane / 16 * 8));
  else
    load_matrices<true>(
        a, tile + place<false, kRows>(row + lane / 8 % 2 * 8, k + lane % 8 + lane / 16 * 8));
}

// The right sides of two products beside each other.
template <bool kAlongK>
__device__ __forceinline__ void right(uint32_t (&b)[2][2], const Bf16* tile, int column, int k) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  uint32_t r[4];
  if constexpr (kAlongK)
    load_matrices<false>(
        r, tile + place<true, kColumns>(column + lane % 8 + lane / 16 * 8, k + lane / 8 % 2 * 8));
  else
    load_matrices<true>(r, tile + place<false, kColumns>(column + lane / 16 * 8, k + lane % 16));
  b[0][0] = r[0];
  b[0][1] = r[1];
  b[1][0] = r[2];
  b[1][1] = r[3];
}

using Sums = float[kWarpSide / 16][kWarpSide / 8][4];

template <bool kA, bool kB>
__device__ __forceinline__ void add_products(Sums& sum, const Stage& stage, int row, int column) {
#pragma unroll
  for (int k = 0; k < kDepth; k += 16) {
    uint32_t b[kWarpSide / 16][2][2];
#pragma unroll
    for (int j = 0; j < kWarpSide / 16; ++j) right<kB>(b[j], stage.b, column + 16 * j, k);
#pragma unroll
    for (int i = 0; i < kWarpSide / 16; ++i) {
      uint32_t a[4];
      left<kA>(a, stage.a, row + 16 * i, k);
#pragma unroll
      for (int j = 0; j < kWarpSide / 8; ++j) mma_bf16(sum[i][j], a, b[j / 2][j % 2]);
    }
  }
}

__device__ __forceinline__ void put_gated(const ProductBf16& p, int64_t row, int64_t column,
                                          const float* gate, const float* up) {
  const int64_t half = p.n / 2;
  float h[2];
  for (int e = 0; e < 2; ++e) {
    const float g = from_bf16(to_bf16(gate[e]));
    h[e] = g * engine_sigmoid(g) * from_bf16(to_bf16(up[e]));
  }
  const bool even = half % 2 == 0;
  put_pair(p.rounded + row * p.n, column, half, even, gate[0], gate[1]);
  put_pair(p.rounded + row * p.n + half, column, half, even, up[0], up[1]);
  put_pair(p.hidden + row * half, column, half, even, h[0], h[1]);
}

template <bool kGated>
__device__ __forceinline__ void put(const ProductBf16& p, const Sums& sum, int64_t row,
                                    int64_t column) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int i = 0; i < kWarpSide / 16; ++i) {
#pragma unroll
    for (int e = 0; e < 4; e += 2) {
      const int64_t r = row + 16 * i + lane / 4 + 4 * e;
      if (r >= p.m) continue;
      if constexpr (kGated) {
#pragma unroll
        for (int j = 0; j < kWarpSide / 8; j += 2) {
          const int64_t c = column / 2 + 4 * j + lane % 4 * 2;
          if (c < p.n / 2) put_gated(p, r, c, &sum[i][j][e], &sum[i][j + 1][e]);
        }
      } else {
#pragma unroll
        for (int j = 0; j < kWarpSide / 8; ++j) {
          const int64_t c = column + 8 * j + lane % 4 * 2;
          if (c < p.n) put_sums(p, r, c, sum[i][j][e], sum[i][j][e + 1]);
        }
      }
    }
  }
}

template <bool kA, bool kB, bool kWide, bool kGated>  // along k; all copies of 16 bytes
__global__ void __launch_bounds__(kThreads, 1) multiply_bf16_kernel(ProductBf16 p) {
  COVENANT_DYNAMIC_SHARED(Shared, shared);
  const auto below = static_cast<unsigned>((p.m + kRows - 1) / kRows);
  const auto beside = static_cast<unsigned>((p.n + kColumns - 1) / kColumns);
  const unsigned band = blockIdx.x / (kBandRows * beside) * kBandRows;
  const unsigned band_rows = below - band < kBandRows ? below - band : kBandRows;
  const unsigned in_band = blockIdx.x - band * beside;
  const int64_t row = static_cast<int64_t>(band + in_band % band_rows) * kRows;
  const int64_t column = static_cast<int64_t>(in_band / band_rows) * kColumns;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int warp_row = warp / 2 * kWarpSide;
  const int warp_column = warp % 2 * kWarpSide;
  const bool busy = row + warp_row < p.m && column + warp_column < p.n;
  const int64_t steps = (p.k + kDepth - 1) / kDepth;
  const auto bring_step = [&](int64_t step) {
    if (step < steps) {
      Stage& stage = shared->stages[step % kStages];
      bring<kA, kWide, false, kRows>(stage.a, p.a, row, p.m, step * kDepth, p.k);
      bring<kB, kWide, kGated, kColumns>(stage.b, p.b, column, p.n, step * kDepth, p.k);
    }
    copy_async_commit();
  };
  for (int step = 0; step < kStages - 1; ++step) bring_step(step);
  Sums sum = {};
  for (int64_t step = 0; step < steps; ++step) {
    copy_async_wait<kStages - 2>();
    __syncthreads();
    bring_step(step + kStages - 1);  // over the tiles of the step before, which all have left
    if (busy) add_products<kA, kB>(sum, shared->stages[step % kStages], warp_row, warp_column);
  }
  copy_async_wait<0>();
  if (busy) put<kGated>(p, sum, row + warp_row, column + warp_column);
}

template <bool kA, bool kB, bool kWide, bool kGated>
void launch(Stream stream, const ProductBf16& p) {
  const unsigned blocks = blocks_of(p.m, kRows) * blocks_of(p.n, kColumns);
  allow_shared(multiply_bf16_kernel<kA, kB, kWide, kGated>, sizeof(Shared));
  COVENANT_LAUNCH((multiply_bf16_kernel<kA, kB, kWide, kGated>), blocks, kThreads, sizeof(Shared),
                  stream, p);
}

template <bool kA, bool kB, bool kGated>
void launch(Stream stream, const ProductBf16& p, bool wide) {
  (wide ? launch<kA, kB, true, kGated> : launch<kA, kB, false, kGated>)(stream, p);
}

// Copies of 16 bytes need starts at 16 bytes, and lines and ends that are multiples of 8.
bool wide(const Side& x, int64_t along) {
  return reinterpret_cast<uintptr_t>(x.data) % 16 == 0 && x.stride % kVector == 0 &&
         along % kVector == 0;
}

}  // namespace

void multiply(Stream stream, const ProductBf16& p) {
  if (p.m == 0 || p.n == 0) return;
  const bool both = wide(p.a, p.a.along_k ? p.k : p.m) && wide(p.b, p.b.along_k ? p.k : p.n);
  if (both && p.m <= kFewRowsMax && p.a.along_k && p.b.along_k && p.hidden == nullptr)
    return multiply_few_rows(stream, p);
  // The three products of a linear layer: forward, input gradient, weight gradient.
  if (p.a.along_k && p.b.along_k)
    (p.hidden == nullptr ? launch<true, true, false> : launch<true, true, true>)(stream, p, both);
  else if (p.a.along_k)
    launch<true, false, false>(stream, p, both);
  else if (!p.b.along_k)
    launch<false, false, false>(stream, p, both);
  else
    raise(COV_INTERNAL, "a bf16 product with A along rows and B along k");
}

}  // namespace covenant::cuda
