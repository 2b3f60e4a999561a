#include "engine/gemm_f32_few.cuh"

#include <algorithm>

#include "engine/copy_async.cuh"
#include "engine/math.cuh"

namespace covenant::cuda {
namespace {

// An element is one chain of additions in the order of k, which no two threads can share. So a thread has one
// column and the rows of its group, a block few columns, that there be blocks for every multiprocessor, and many
// pieces of 128 bytes of each line of W are under way.
constexpr int kColumns = 16;
constexpr int kGroups = 8;  // of threads, which take rows in turns
constexpr int kThreads = kColumns * kGroups;
constexpr int kLineBytes = 128;
constexpr size_t kStagesBytes = 56 << 10;  // four blocks fit on a multiprocessor from sm_90 on, two on others

template <typename T>
struct __align__(16) Piece {
  static constexpr int kCount = 16 / static_cast<int>(sizeof(T));
  T of[kCount];
};

template <typename T, int kEach>  // rows of a thread
struct Form {
  static constexpr int kDepth = kLineBytes / static_cast<int>(sizeof(T));
  static constexpr int kRows = kGroups * kEach;
  static constexpr int kRowLine = kDepth + 4;  // the two rows that a warp reads at once lie in other banks
  struct Stage {
    T w[kColumns * kDepth];
    float x[kRows * kRowLine];
  };
  static constexpr int kStages = static_cast<int>(std::clamp<size_t>(kStagesBytes / sizeof(Stage), 3, 12));
  static constexpr size_t kSharedBytes = kStages * sizeof(Stage);
  static constexpr int kUnrolled = kEach < 8 ? 8 : 4;  // pieces, as there are registers
};

// Where a piece of a line of W lies. The order of the pieces changes with the line, so that eight lines hit all
// banks.
template <typename T>
__device__ __forceinline__ int place(int line, int piece) {
  return (line * 8 + (piece ^ (line % 8))) * Piece<T>::kCount;
}

template <typename T, int kEach>
__device__ __forceinline__ void bring(typename Form<T, kEach>::Stage& stage, const ProductFew& p, const T* w,
                                      int64_t column, int64_t from) {
  using F = Form<T, kEach>;
  {
    const int line = static_cast<int>(threadIdx.x) / 8;  // a piece of W for each thread
    const int piece = static_cast<int>(threadIdx.x) % 8;
    const int64_t k = from + piece * Piece<T>::kCount;
    const bool inside = column + line < p.n && k < p.k;
    copy_async_16(stage.w + place<T>(line, piece), w + (inside ? (column + line) * p.k + k : 0), inside);
  }
  constexpr int kPieces = F::kDepth / 4;  // of a row of X
#pragma unroll
  for (int at = static_cast<int>(threadIdx.x); at < F::kRows * kPieces; at += kThreads) {
    const int row = at / kPieces;
    const int64_t k = from + at % kPieces * 4;
    const bool inside = row < p.m && k < p.k;
    copy_async_16(stage.x + row * F::kRowLine + at % kPieces * 4, p.x + (inside ? row * p.k + k : 0), inside);
  }
}

template <typename T, int kEach>
__device__ __forceinline__ void add_piece(float (&sum)[kEach], const typename Form<T, kEach>::Stage& stage,
                                          int column, int group, int piece) {
  using F = Form<T, kEach>;
  const auto w = *reinterpret_cast<const Piece<T>*>(stage.w + place<T>(column, piece));
#pragma unroll
  for (int e = 0; e < Piece<T>::kCount; e += 4) {
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const auto x = *reinterpret_cast<const Piece<float>*>(stage.x + (group + i * kGroups) * F::kRowLine +
                                                            piece * Piece<T>::kCount + e);
#pragma unroll
      for (int l = 0; l < 4; ++l) sum[i] = fmaf(x.of[l], get(&w.of[e + l]), sum[i]);
    }
  }
}

template <typename T, int kEach>
__global__ void __launch_bounds__(kThreads, 4) few_rows_kernel(ProductFew p, const T* w) {
  using F = Form<T, kEach>;
  COVENANT_DYNAMIC_SHARED(typename F::Stage, stages);
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kColumns;
  const int column = static_cast<int>(threadIdx.x) % kColumns;
  const int group = static_cast<int>(threadIdx.x) / kColumns;
  const bool busy = static_cast<int>(threadIdx.x) / 32 * (32 / kColumns) < p.m;  // the warp has a row
  const int steps = static_cast<int>((p.k + F::kDepth - 1) / F::kDepth);
  const auto bring_step = [&](int step) {
    if (step < steps) bring<T, kEach>(stages[step % F::kStages], p, w, first, int64_t{step} * F::kDepth);
    copy_async_commit();
  };
  for (int step = 0; step < F::kStages - 1; ++step) bring_step(step);
  float sum[kEach];
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    const int64_t row = group + i * kGroups;
    const bool inside = p.init != nullptr && row < p.m && first + column < p.n;
    sum[i] = inside ? p.init[row * p.n + first + column] : 0.0f;
  }
  for (int step = 0; step < steps; ++step) {
    copy_async_wait<F::kStages - 2>();
    __syncthreads();
    bring_step(step + F::kStages - 1);  // over the pieces of the step before, which all have left
    if (!busy) continue;
    const typename F::Stage& stage = stages[step % F::kStages];
    // Nothing is added beyond the last piece: a sum of -0 would become 0.
    const int64_t left = (p.k - int64_t{step} * F::kDepth) / Piece<T>::kCount;
    if (left >= 8) {
#pragma unroll F::kUnrolled
      for (int piece = 0; piece < 8; ++piece) add_piece<T, kEach>(sum, stage, column, group, piece);
    } else {
      for (int piece = 0; piece < left; ++piece) add_piece<T, kEach>(sum, stage, column, group, piece);
    }
  }
  copy_async_wait<0>();
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    const int64_t row = group + i * kGroups;
    if (row < p.m && first + column < p.n) p.c[row * p.n + first + column] = sum[i];
  }
}

template <typename T, int kEach>
void launch(Stream stream, const ProductFew& p, const T* w) {
  constexpr size_t kBytes = Form<T, kEach>::kSharedBytes;
  allow_shared(few_rows_kernel<T, kEach>, kBytes);
  COVENANT_LAUNCH((few_rows_kernel<T, kEach>), blocks_of(p.n, kColumns), kThreads, kBytes, stream, p, w);
}

template <typename T>
void launch(Stream stream, const ProductFew& p, const T* w) {
  if (p.m <= kGroups)
    launch<T, 1>(stream, p, w);
  else if (p.m <= 2 * kGroups)
    launch<T, 2>(stream, p, w);
  else if (p.m <= 4 * kGroups)
    launch<T, 4>(stream, p, w);
  else
    launch<T, 8>(stream, p, w);
}

bool aligned(const void* at) { return reinterpret_cast<uintptr_t>(at) % 16 == 0; }

}  // namespace

bool takes_few_rows(const ProductFew& p) {
  return p.m <= kFewRowsF32Max && p.k % (p.w16 != nullptr ? 8 : 4) == 0 && aligned(p.x) &&
         aligned(p.w16) && aligned(p.w);
}

void multiply_few_rows(Stream stream, const ProductFew& p) {
  if (p.m == 0 || p.n == 0) return;
  if (p.w16 != nullptr)
    launch(stream, p, p.w16);
  else
    launch(stream, p, p.w);
}

}  // namespace covenant::cuda
