#include "engine/gemm_int8.cuh"

#include <algorithm>

#include "engine/copy_async.cuh"
#include "engine/math.cuh"
#include "engine/mma.cuh"

namespace covenant::cuda {
namespace {

constexpr int kDepth = 128;  // bytes of a line in shared memory at once
constexpr int kPiece = 16;   // bytes of one copy
constexpr int kTile = 16;    // rows, and columns, of one place of a warp

// Products of few rows are a matter of reading W, once: a block takes all rows and few columns, that there be blocks
// for every multiprocessor, and has many lines under way. Where there are columns for blocks of 64 these read X less
// often. More rows go through tiles of 128 x 128.
//
// A block of kWarps warps, of which kDown x kAcross multiply, each kTall x kWide places of 16 x 16.
template <int kWarps_, int kDown_, int kAcross_, int kTall_, int kWide_, size_t kBytes, int kStagesMax>
struct Form {
  static constexpr int kWarps = kWarps_, kDown = kDown_, kAcross = kAcross_, kTall = kTall_, kWide = kWide_;
  static constexpr int kThreads = 32 * kWarps;
  static constexpr int kRows = kTile * kDown * kTall;
  static constexpr int kColumns = kTile * kAcross * kWide;
  struct Stage {
    int8_t x[kRows * kDepth];
    int8_t w[kColumns * kDepth];
  };
  static constexpr int kStages = static_cast<int>(std::min<size_t>(kStagesMax, kBytes / sizeof(Stage)));
  static constexpr size_t kSharedBytes = kStages * sizeof(Stage);
};

constexpr size_t kNarrowBytes = 96 << 10, kBroadBytes = 64 << 10;
using Narrow16 = Form<4, 1, 1, 1, 1, kNarrowBytes, 12>;
using Narrow32 = Form<4, 2, 1, 1, 1, kNarrowBytes, 12>;
using Narrow64 = Form<4, 4, 1, 1, 1, kNarrowBytes, 12>;
using Broad16 = Form<4, 1, 4, 1, 1, kBroadBytes, 12>;
using Broad32 = Form<4, 1, 4, 2, 1, kBroadBytes, 12>;
using Broad64 = Form<4, 2, 2, 2, 2, kBroadBytes, 12>;
using Tiles = Form<8, 2, 4, 4, 2, 96 << 10, 3>;
constexpr int64_t kBroadFrom = 8192;  // columns

// Where 16 bytes from (line, k) on lie. The order of the pieces of a line changes with the line, so that eight lines
// hit all banks.
__device__ __forceinline__ int place(int line, int k) {
  return line * kDepth + ((k / kPiece) ^ (line % 8)) * kPiece;
}

template <typename F, int kLines>
__device__ __forceinline__ void bring(int8_t* tile, const int8_t* x, int64_t first, int64_t lines, int64_t from,
                                      int64_t stride) {
#pragma unroll
  for (int at = static_cast<int>(threadIdx.x); at < kLines * kDepth / kPiece; at += F::kThreads) {
    const int line = at / (kDepth / kPiece);
    const int k = at % (kDepth / kPiece) * kPiece;
    const bool inside = first + line < lines && from + k < stride;
    copy_async_16(tile + place(line, k), x + (inside ? (first + line) * stride + from + k : 0), inside);
  }
}

__device__ __forceinline__ void load_bytes(uint32_t (&r)[4], const int8_t* at) {
  load_matrices<false>(r, reinterpret_cast<const Bf16*>(at));
}

template <typename F>
using Sums = int32_t[F::kTall][F::kWide][2][4];

template <typename F>
__device__ __forceinline__ void add_products(Sums<F>& sum, const typename F::Stage& stage, int row, int column) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int k = 0; k < kDepth; k += 32) {
    uint32_t b[F::kWide][4];
#pragma unroll
    for (int j = 0; j < F::kWide; ++j)
      load_bytes(b[j], stage.w + place(column + j * kTile + lane % 8 + lane / 16 * 8, k + lane / 8 % 2 * 16));
#pragma unroll
    for (int i = 0; i < F::kTall; ++i) {
      uint32_t a[4];
      load_bytes(a, stage.x + place(row + i * kTile + lane % 16, k + lane / 16 * 16));
#pragma unroll
      for (int j = 0; j < F::kWide; ++j) {
        mma_s8(sum[i][j][0], a, {b[j][0], b[j][1]});
        mma_s8(sum[i][j][1], a, {b[j][2], b[j][3]});
      }
    }
  }
}

// One rounding each, as on the CPU.
__device__ __forceinline__ float scaled(int32_t sum, float row_scale, float scale) {
  return static_cast<float>(sum) * (row_scale * scale);
}

// Two neighbouring numbers of a row, the second only where there is one.
__device__ __forceinline__ void put_two(const ProductInt8& p, int64_t row, int64_t column, const int32_t* sum) {
  const int64_t at = row * p.n + column;
  const float row_scale = p.x_scales[row];
  for (int e = 0; e < 2 && column + e < p.n; ++e) {
    const float value = scaled(sum[e], row_scale, p.w_scales[column + e]);
    p.c[at + e] = p.init == nullptr ? value : p.init[at + e] + value;
  }
}

template <typename F>
__device__ __forceinline__ void put_sums(const ProductInt8& p, const Sums<F>& sum, int64_t row, int64_t column) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int i = 0; i < F::kTall; ++i)
#pragma unroll
    for (int j = 0; j < F::kWide; ++j)
#pragma unroll
      for (int e = 0; e < 8; e += 2) {
        const int64_t r = row + i * kTile + lane / 4 + e % 4 / 2 * 8;
        const int64_t c = column + j * kTile + e / 4 * 8 + lane % 4 * 2;
        if (r < p.m && c < p.n) put_two(p, r, c, &sum[i][j][e / 4][e % 4]);
      }
}

template <typename F>
__global__ void __launch_bounds__(F::kThreads) multiply_int8_kernel(ProductInt8 p) {
  COVENANT_DYNAMIC_SHARED(typename F::Stage, stages);
  const int64_t first_column = static_cast<int64_t>(blockIdx.x) * F::kColumns;
  const int64_t first_row = static_cast<int64_t>(blockIdx.y) * F::kRows;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int row = warp / F::kAcross * F::kTall * kTile;
  const int column = warp % F::kAcross * F::kWide * kTile;
  const bool busy = warp < F::kDown * F::kAcross && first_row + row < p.m && first_column + column < p.n;
  const int steps = static_cast<int>((p.stride + kDepth - 1) / kDepth);
  const auto bring_step = [&](int step) {
    if (step < steps) {
      typename F::Stage& stage = stages[step % F::kStages];
      const int64_t from = int64_t{step} * kDepth;
      bring<F, F::kRows>(stage.x, p.x, first_row, p.m, from, p.stride);
      bring<F, F::kColumns>(stage.w, p.w, first_column, p.n, from, p.stride);
    }
    copy_async_commit();
  };
  for (int step = 0; step < F::kStages - 1; ++step) bring_step(step);
  Sums<F> sum = {};
  for (int step = 0; step < steps; ++step) {
    copy_async_wait<F::kStages - 2>();
    __syncthreads();
    bring_step(step + F::kStages - 1);  // over the lines of the step before, which all have left
    if (busy) add_products<F>(sum, stages[step % F::kStages], row, column);
  }
  copy_async_wait<0>();
  if (busy) put_sums<F>(p, sum, first_row + row, first_column + column);
}

template <typename F>
void launch(Stream stream, const ProductInt8& p) {
  allow_shared(multiply_int8_kernel<F>, F::kSharedBytes);
  const dim3 grid(blocks_of(p.n, F::kColumns), blocks_of(p.m, F::kRows));
  COVENANT_LAUNCH((multiply_int8_kernel<F>), grid, F::kThreads, F::kSharedBytes, stream, p);
}

}  // namespace

void multiply(Stream stream, const ProductInt8& p) {
  if (p.m == 0 || p.n == 0) return;
  const bool narrow = p.n < kBroadFrom;
  if (p.m <= 16)
    (narrow ? launch<Narrow16> : launch<Broad16>)(stream, p);
  else if (p.m <= 32)
    (narrow ? launch<Narrow32> : launch<Broad32>)(stream, p);
  else if (p.m <= 64)
    (narrow ? launch<Narrow64> : launch<Broad64>)(stream, p);
  else
    launch<Tiles>(stream, p);
}

}  // namespace covenant::cuda
