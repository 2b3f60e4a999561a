// Tiles of one head in shared memory and the products of a warp over them; for attention in bf16.
//
// A block has 4 warps of 16 rows. Rows of a tile lie kDim + 8 apart: an odd number of 16 bytes, so that
// the eight rows of a matrix hit all banks. Heads narrower than kDim are filled up with zeros.
#pragma once

#include "engine/attention.cuh"
#include "engine/copy_async.cuh"
#include "engine/mma.cuh"

namespace covenant::cuda::tiles {

constexpr int kWarps = 4;
constexpr int kThreads = 32 * kWarps;
constexpr int kRows = 16 * kWarps;  // rows of a block
constexpr float kLog2E = 1.44269504088896341f;

template <int kDim>
constexpr int kStride = kDim + 8;

// Rows of one head in global memory.
struct Strip {
  const Bf16* data;
  int64_t stride, rows;
  int dim;
  bool wide;  // every row starts at 16 bytes and has a multiple of 8 numbers
};

// tile row i = row first + i, zeros outside. Ends with copies under way.
template <int kDim, int kCount>
__device__ __forceinline__ void load(Bf16* tile, const Strip& x, int64_t first) {
  constexpr int kPieces = kDim / 8;
  for (int at = static_cast<int>(threadIdx.x); at < kCount * kPieces; at += kThreads) {
    const int row = at / kPieces;
    const int column = at % kPieces * 8;
    Bf16* const to = tile + row * kStride<kDim> + column;
    const bool inside = first + row < x.rows;
    const Bf16* const from = x.data + (inside ? (first + row) * x.stride + column : 0);
    if (x.wide) {
      const bool all = inside && column < x.dim;
      copy_async_16(to, all ? from : x.data, all);
    } else {
      for (int e = 0; e < 8; ++e) to[e] = inside && column + e < x.dim ? from[e] : Bf16{0};
    }
  }
}

// Rows [row, row + 16) and columns [column, column + 16) of a tile as the left side of a product.
template <int kDim>
__device__ __forceinline__ void left(uint32_t (&a)[4], const Bf16* tile, int row, int column) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  load_matrices<false>(a, tile + (row + lane % 16) * kStride<kDim> + column + lane / 16 * 8);
}

// The right sides of two products beside each other: 16 columns from `n`, 16 of k from `k`. Tile rows are
// columns of the product, or k when kAcross.
template <int kDim, bool kAcross>
__device__ __forceinline__ void right(uint32_t (&b)[2][2], const Bf16* tile, int n, int k) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int low = lane % 8 + lane / 16 * 8;
  const int half = lane / 8 % 2 * 8;
  uint32_t r[4];
  if constexpr (kAcross)
    load_matrices<true>(r, tile + (k + lane % 16) * kStride<kDim> + n + lane / 16 * 8);
  else
    load_matrices<false>(r, tile + (n + low) * kStride<kDim> + k + half);
  b[0][0] = r[0];
  b[0][1] = r[1];
  b[1][0] = r[2];
  b[1][1] = r[3];
}

// s (16, kCount) = rows [row, row + 16) of x times y^T over the head.
template <int kDim, int kCount>
__device__ __forceinline__ void compare(float (&s)[kCount / 8][4], const Bf16* x, int row,
                                        const Bf16* y) {
#pragma unroll
  for (int j = 0; j < kCount / 8; ++j)
#pragma unroll
    for (int e = 0; e < 4; ++e) s[j][e] = 0.0f;
#pragma unroll
  for (int k = 0; k < kDim; k += 16) {
    uint32_t a[4];
    left<kDim>(a, x, row, k);
#pragma unroll
    for (int j = 0; j < kCount / 16; ++j) {
      uint32_t b[2][2];
      right<kDim, false>(b, y, 16 * j, k);
      mma_bf16(s[2 * j], a, b[0]);
      mma_bf16(s[2 * j + 1], a, b[1]);
    }
  }
}

// Weights (16, 16), as `compare` leaves them, rounded to the left side of a product.
__device__ __forceinline__ void left_of(uint32_t (&a)[4], const float (&low)[4],
                                        const float (&high)[4]) {
  a[0] = pair_bf16(low[0], low[1]);
  a[1] = pair_bf16(low[2], low[3]);
  a[2] = pair_bf16(high[0], high[1]);
  a[3] = pair_bf16(high[2], high[3]);
}

// c (16, kDim) += weights (16, 16) times rows [row, row + 16) of y.
template <int kDim>
__device__ __forceinline__ void weigh_part(float (&c)[kDim / 8][4], const float (&low)[4],
                                           const float (&high)[4], const Bf16* y, int row) {
  uint32_t a[4];
  left_of(a, low, high);
#pragma unroll
  for (int j = 0; j < kDim / 16; ++j) {
    uint32_t b[2][2];
    right<kDim, true>(b, y, 16 * j, row);
    mma_bf16(c[2 * j], a, b[0]);
    mma_bf16(c[2 * j + 1], a, b[1]);
  }
}

// c (16, kDim) += w (16, kCount) times y.
template <int kDim, int kCount>
__device__ __forceinline__ void weigh(float (&c)[kDim / 8][4], const float (&w)[kCount / 8][4],
                                      const Bf16* y) {
#pragma unroll
  for (int k = 0; k < kCount / 16; ++k) weigh_part<kDim>(c, w[2 * k], w[2 * k + 1], y, 16 * k);
}

// Writes the 16 rows of a warp times row_scale[half] * scale, rounded, for rows below `end`.
template <int kDim>
__device__ __forceinline__ void store(Bf16* to, int64_t stride, int64_t row, int64_t end, int dim,
                                      const float (&c)[kDim / 8][4], float low_scale,
                                      float high_scale) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t low = row + lane / 4;
#pragma unroll
  for (int j = 0; j < kDim / 8; ++j) {
    const int column = 8 * j + lane % 4 * 2;
    if (column >= dim) continue;  // dim is even
    if (low < end)
      *reinterpret_cast<uint32_t*>(to + low * stride + column) =
          pair_bf16(c[j][0] * low_scale, c[j][1] * low_scale);
    if (low + 8 < end)
      *reinterpret_cast<uint32_t*>(to + (low + 8) * stride + column) =
          pair_bf16(c[j][2] * high_scale, c[j][3] * high_scale);
  }
}

// Where heads lie in rows of (q | k | v) and of outputs.
struct Place {
  int64_t length, heads, group, dim, width, out_width, keys, values;
  bool wide;
  Place(const AttentionRows& rows, bool wide_rows)
      : length(rows.length),
        heads(rows.shape.heads),
        group(rows.shape.group()),
        dim(rows.shape.dim),
        width(rows.shape.width()),
        out_width(rows.shape.query_width()),
        keys(out_width),
        values(out_width + rows.shape.kv_heads * dim),
        wide(wide_rows && dim % 8 == 0) {}
  // The columns of one head from `column` on, of rows of (q | k | v) or of outputs.
  __device__ Strip strip(const Bf16* x, int64_t stride, int64_t sequence, int64_t column) const {
    return {x + sequence * length * stride + column, stride, length, static_cast<int>(dim), wide};
  }
};

inline bool aligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

}  // namespace covenant::cuda::tiles
