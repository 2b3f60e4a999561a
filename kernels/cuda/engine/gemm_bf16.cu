// Products of bf16 operands by mma.sync, for devices without cuBLASLt.
#include "engine/gemm.cuh"
#include "engine/mma.cuh"

namespace covenant::cuda {
namespace {

constexpr int kTile = 128;   // rows and columns of C per block
constexpr int kDepth = 32;   // of A and B in shared memory at once
constexpr int kThreads = 256;
constexpr int kRow = kDepth + 8;  // of shared memory: the rows of a fragment hit all banks
constexpr int kWarpRows = 64;     // of C per warp: 2 warps below each other, 4 side by side
constexpr int kWarpColumns = 32;
constexpr int kEach = kTile * kDepth / kThreads;  // elements that a thread brings, 16
constexpr int kVector = 8;                        // elements of one wide load

// What a thread brings of the next tile, on its way from global to shared memory.
struct __align__(16) Piece {
  Bf16 values[kEach];
};

// Which elements of a tile (row, k) a thread brings: two runs of 8 along the dimension whose stride is
// 1, so that neighbouring threads read neighbouring memory.
template <bool kAlongK>
__device__ void place(int run, int& row, int& k) {
  const int at = (static_cast<int>(threadIdx.x) + run * kThreads) * kVector;
  row = kAlongK ? at / kDepth : at % kTile;
  k = kAlongK ? at % kDepth : at / kTile;
}

template <bool kAlongK, bool kWide>
__device__ void fetch(Piece& piece, const Bf16* x, int64_t stride, int64_t first, int64_t rows,
                      int64_t from, int64_t depth) {
  for (int run = 0; run < kEach / kVector; ++run) {
    int row = 0;
    int k = 0;
    place<kAlongK>(run, row, k);
    Bf16* const to = piece.values + run * kVector;
    const int64_t line = kAlongK ? first + row : from + k;
    const int64_t lines = kAlongK ? rows : depth;
    const int64_t at = kAlongK ? from + k : first + row;
    const int64_t end = kAlongK ? depth : rows;
    if constexpr (kWide) {
      // Strides and starts are multiples of 8: a run lies inside or outside as a whole.
      uint4 wide = make_uint4(0, 0, 0, 0);
      if (line < lines && at < end) wide = *reinterpret_cast<const uint4*>(x + line * stride + at);
      *reinterpret_cast<uint4*>(to) = wide;
    } else {
      for (int i = 0; i < kVector; ++i)
        to[i] = line < lines && at + i < end ? x[line * stride + at + i] : Bf16{0};
    }
  }
}

template <bool kAlongK>
__device__ void store(Bf16* tile, const Piece& piece) {
  for (int run = 0; run < kEach / kVector; ++run) {
    int row = 0;
    int k = 0;
    place<kAlongK>(run, row, k);
    const Bf16* const values = piece.values + run * kVector;
    if constexpr (kAlongK) {
      *reinterpret_cast<uint4*>(tile + row * kRow + k) = *reinterpret_cast<const uint4*>(values);
    } else {
      for (int i = 0; i < kVector; ++i) tile[(row + i) * kRow + k] = values[i];
    }
  }
}

__device__ uint32_t pair(const Bf16* tile, int row, int k) {
  return *reinterpret_cast<const uint32_t*>(tile + row * kRow + k);
}

template <bool kA, bool kB, bool kWide>  // along k; all of it in wide loads
// Two blocks on a multiprocessor hide the loads of each other; narrow loads need the registers of one.
__global__ void __launch_bounds__(kThreads, kWide ? 2 : 1) multiply_bf16_kernel(Product<Bf16> p) {
  __shared__ __align__(16) Bf16 tile_a[kTile * kRow];
  __shared__ __align__(16) Bf16 tile_b[kTile * kRow];
  const int64_t inner = blockIdx.z % p.inner;
  const int64_t outer = blockIdx.z / p.inner;
  const Bf16* const a = p.a + inner * p.a_batch.inner + outer * p.a_batch.outer;
  const Bf16* const b = p.b + inner * p.b_batch.inner + outer * p.b_batch.outer;
  const int64_t shift = inner * p.c_batch.inner + outer * p.c_batch.outer;
  const int64_t row = static_cast<int64_t>(blockIdx.y) * kTile;
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kTile;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int g = static_cast<int>(threadIdx.x) % 32 / 4;
  const int t = static_cast<int>(threadIdx.x) % 4;
  const int warp_row = warp / 4 * kWarpRows;
  const int warp_column = warp % 4 * kWarpColumns;
  const int64_t a_stride = kA ? p.a_row : p.a_k;
  const int64_t b_stride = kB ? p.b_column : p.b_k;
  float sum[kWarpRows / 16][kWarpColumns / 8][4] = {};
  Piece next_a;
  Piece next_b;
  fetch<kA, kWide>(next_a, a, a_stride, row, p.m, 0, p.k);
  fetch<kB, kWide>(next_b, b, b_stride, column, p.n, 0, p.k);
  for (int64_t from = 0; from < p.k; from += kDepth) {
    store<kA>(tile_a, next_a);
    store<kB>(tile_b, next_b);
    __syncthreads();
    if (from + kDepth < p.k) {
      fetch<kA, kWide>(next_a, a, a_stride, row, p.m, from + kDepth, p.k);
      fetch<kB, kWide>(next_b, b, b_stride, column, p.n, from + kDepth, p.k);
    }
    for (int k = 0; k < kDepth; k += 16) {
      uint32_t right[kWarpColumns / 8][2];
      for (int j = 0; j < kWarpColumns / 8; ++j) {
        right[j][0] = pair(tile_b, warp_column + j * 8 + g, k + 2 * t);
        right[j][1] = pair(tile_b, warp_column + j * 8 + g, k + 2 * t + 8);
      }
      for (int i = 0; i < kWarpRows / 16; ++i) {
        const int r = warp_row + i * 16 + g;
        const uint32_t left[4] = {pair(tile_a, r, k + 2 * t), pair(tile_a, r + 8, k + 2 * t),
                                  pair(tile_a, r, k + 2 * t + 8), pair(tile_a, r + 8, k + 2 * t + 8)};
        for (int j = 0; j < kWarpColumns / 8; ++j) mma_bf16(sum[i][j], left, right[j]);
      }
    }
    __syncthreads();
  }
  for (int i = 0; i < kWarpRows / 16; ++i) {
    for (int j = 0; j < kWarpColumns / 8; ++j) {
      for (int e = 0; e < 4; ++e) {
        const int64_t r = row + warp_row + i * 16 + g + e / 2 * 8;
        const int64_t c = column + warp_column + j * 8 + 2 * t + e % 2;
        if (r >= p.m || c >= p.n) continue;
        const int64_t at = shift + r * p.c_row + c;
        p.c[at] = sum[i][j][e] + (p.init == nullptr ? 0.0f : p.init[at]);
      }
    }
  }
}

template <bool kA, bool kB>
void launch(Stream stream, const Product<Bf16>& p, bool wide) {
  const dim3 grid(blocks_of(p.n, kTile), blocks_of(p.m, kTile),
                  static_cast<unsigned>(p.inner * p.outer));
  if (wide)
    COVENANT_LAUNCH((multiply_bf16_kernel<kA, kB, true>), grid, kThreads, 0, stream, p);
  else
    COVENANT_LAUNCH((multiply_bf16_kernel<kA, kB, false>), grid, kThreads, 0, stream, p);
}

// Wide loads need starts at 16 bytes, lines that are multiples of 8, and ends that no run straddles.
bool wide(const Bf16* x, int64_t stride, int64_t along, BatchStride batch) {
  return reinterpret_cast<uintptr_t>(x) % 16 == 0 && stride % kVector == 0 &&
         along % kVector == 0 && batch.inner % kVector == 0 && batch.outer % kVector == 0;
}

}  // namespace

void multiply(Stream stream, const Product<uint16_t>& p) {
  if (p.m == 0 || p.n == 0) return;
  const bool a = p.a_k == 1;
  const bool b = p.b_k == 1;
  const bool both = wide(p.a, a ? p.a_row : p.a_k, a ? p.k : p.m, p.a_batch) &&
                    wide(p.b, b ? p.b_column : p.b_k, b ? p.k : p.n, p.b_batch);
  // The three products of a linear layer: forward, input gradient, weight gradient.
  if (a && b)
    launch<true, true>(stream, p, both);
  else if (a)
    launch<true, false>(stream, p, both);
  else if (!b)
    launch<false, false>(stream, p, both);
  else
    raise(COV_INTERNAL, "a bf16 product with A along rows and B along k");
}

}  // namespace covenant::cuda
