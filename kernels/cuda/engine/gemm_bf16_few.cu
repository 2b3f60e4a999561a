#include "engine/gemm_bf16_few.cuh"

#include <algorithm>

#include "engine/copy_async.cuh"
#include "engine/gemm_bf16_put.cuh"
#include "engine/mma.cuh"

namespace covenant::cuda {
namespace {

// Few rows make a product of reading B, once. So a block takes all rows and few columns, that there be blocks for
// every multiprocessor, and has many pieces of 64 of k under way.
constexpr int kDepth = 64;
constexpr int kWarps = 4;
constexpr int kThreads = 32 * kWarps;
constexpr int kNarrow = 16, kBroad = 64;  // columns of a block
// From so many columns on there are enough blocks of 64, which read A less often.
constexpr int64_t kBroadFrom = 8192;

template <int kTiles, int kColumns>  // kTiles: of 16 rows
struct Form {
  static constexpr int kRows = 16 * kTiles;
  struct Stage {
    Bf16 a[kRows * kDepth];
    Bf16 b[kColumns * kDepth];
  };
  // Of narrow blocks there may be one on a multiprocessor, of broad ones two.
  static constexpr int kStages =
      static_cast<int>(std::min<size_t>(12, (kColumns == kNarrow ? 96 << 10 : 64 << 10) / sizeof(Stage)));
  static constexpr size_t kSharedBytes = kStages * sizeof(Stage);
  // Of 16 x 16, which warps take in turns.
  static constexpr int kUnits = kTiles * (kColumns / 16);
  static constexpr int kUnitsEach = (kUnits + kWarps - 1) / kWarps;
};

// Where 8 elements from (row, k) on lie in a tile. The order of the pieces of a line changes with the line, so
// that the eight rows of a matrix hit all banks.
__device__ __forceinline__ int place(int row, int k) {
  return row * kDepth + ((k / kVector) ^ (row % 8)) * kVector;
}

template <int kCount>
__device__ __forceinline__ void bring(Bf16* tile, const Side& x, int64_t first, int64_t lines, int64_t from,
                                      int64_t depth) {
#pragma unroll
  for (int at = static_cast<int>(threadIdx.x); at < kCount * kDepth / kVector; at += kThreads) {
    const int row = at / (kDepth / kVector);
    const int k = at % (kDepth / kVector) * kVector;
    const bool inside = first + row < lines && from + k < depth;
    copy_async_16(tile + place(row, k), x.data + (inside ? (first + row) * x.stride + from + k : 0), inside);
  }
}

template <int kTiles, int kColumns>
__global__ void __launch_bounds__(kThreads) few_rows_kernel(ProductBf16 p) {
  using F = Form<kTiles, kColumns>;
  COVENANT_DYNAMIC_SHARED(typename F::Stage, stages);
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kColumns;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int steps = static_cast<int>((p.k + kDepth - 1) / kDepth);
  const auto bring_step = [&](int step) {
    if (step < steps) {
      typename F::Stage& stage = stages[step % F::kStages];
      const int64_t from = int64_t{step} * kDepth;
      bring<F::kRows>(stage.a, p.a, 0, p.m, from, p.k);
      bring<kColumns>(stage.b, p.b, column, p.n, from, p.k);
    }
    copy_async_commit();
  };
  for (int step = 0; step < F::kStages - 1; ++step) bring_step(step);
  float sum[F::kUnitsEach][2][4] = {};
  for (int step = 0; step < steps; ++step) {
    copy_async_wait<F::kStages - 2>();
    __syncthreads();
    bring_step(step + F::kStages - 1);  // over the pieces of the step before, which all have left
    const typename F::Stage& stage = stages[step % F::kStages];
#pragma unroll
    for (int k = 0; k < kDepth; k += 16) {
#pragma unroll
      for (int i = 0; i < F::kUnitsEach; ++i) {
        const int unit = warp + i * kWarps;
        if (unit >= F::kUnits) continue;
        uint32_t a[4], b[4];
        load_matrices<false>(a, stage.a + place(unit % kTiles * 16 + lane % 16, k + lane / 16 * 8));
        load_matrices<false>(
            b, stage.b + place(unit / kTiles * 16 + lane % 8 + lane / 16 * 8, k + lane / 8 % 2 * 8));
        mma_bf16(sum[i][0], a, {b[0], b[1]});
        mma_bf16(sum[i][1], a, {b[2], b[3]});
      }
    }
  }
  copy_async_wait<0>();
#pragma unroll
  for (int i = 0; i < F::kUnitsEach; ++i) {
    const int unit = warp + i * kWarps;
#pragma unroll
    for (int e = 0; e < 8; ++e) {
      const int64_t r = unit % kTiles * 16 + lane / 4 + e % 4 / 2 * 8;
      const int64_t c = column + unit / kTiles * 16 + e / 4 * 8 + lane % 4 * 2;
      if (e % 2 == 0 && unit < F::kUnits && r < p.m && c < p.n)
        put_sums(p, r, c, sum[i][e / 4][e % 4], sum[i][e / 4][e % 4 + 1]);
    }
  }
}

template <int kTiles, int kColumns>
void launch(Stream stream, const ProductBf16& p) {
  constexpr size_t kBytes = Form<kTiles, kColumns>::kSharedBytes;
  allow_shared(few_rows_kernel<kTiles, kColumns>, kBytes);
  COVENANT_LAUNCH((few_rows_kernel<kTiles, kColumns>), blocks_of(p.n, kColumns), kThreads, kBytes, stream, p);
}

template <int kColumns>
void launch(Stream stream, const ProductBf16& p) {
  if (p.m <= 16)
    launch<1, kColumns>(stream, p);
  else if (p.m <= 32)
    launch<2, kColumns>(stream, p);
  else
    launch<4, kColumns>(stream, p);
}

}  // namespace

void multiply_few_rows(Stream stream, const ProductBf16& p) {
  (p.n < kBroadFrom ? launch<kNarrow> : launch<kBroad>)(stream, p);
}

}  // namespace covenant::cuda
