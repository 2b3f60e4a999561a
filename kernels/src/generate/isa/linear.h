// Products with packed fp32 or bf16 weights; everything of one output tile in registers.
#pragma once

#include "engine/isa/simd.h"
#include "generate/kernels.h"

namespace covenant {
namespace COV_ISA {

// ---- weights ------------------------------------------------------------------------------------

struct Fp32Weights {
  typedef float T;
  static inline __attribute__((always_inline)) V load_half(const float* row, int half) { return load(row + 16 * half); }
};

// Lane i of a row of 32-bit words: column i below, column 16 + i above.
struct Bf16Weights {
  typedef uint16_t T;
  static inline __attribute__((always_inline)) V load_half(const uint16_t* row, int half) {
#if COV_SIMD == 512
    const __m512i x = _mm512_loadu_si512(row);
    return {_mm512_castsi512_ps(half == 0 ? _mm512_slli_epi32(x, 16)
                                          : _mm512_and_si512(x, _mm512_set1_epi32(-65536)))};
#elif COV_SIMD == 256
    const __m256i x = _mm256_loadu_si256((const __m256i*)row);
    const __m256i y = _mm256_loadu_si256((const __m256i*)(row + 16));
    const __m256i high = _mm256_set1_epi32(-65536);
    if (half == 0)
      return {_mm256_castsi256_ps(_mm256_slli_epi32(x, 16)),
              _mm256_castsi256_ps(_mm256_slli_epi32(y, 16))};
    return {_mm256_castsi256_ps(_mm256_and_si256(x, high)),
            _mm256_castsi256_ps(_mm256_and_si256(y, high))};
#else
    V v;
    for (int i = 0; i < 16; ++i) {
      const uint32_t bits = (uint32_t)row[2 * i + half] << 16;
      __builtin_memcpy(&v.f[i], &bits, 4);
    }
    return v;
#endif
  }
};

// ---- one tile: Rows x (16 * Vectors) -----------------------------------------------------------

template <typename Weights>
struct LinearTile {
  int64_t k;
  const float* x;
  int64_t x_row;
  const typename Weights::T* w;  // panel of the tile's first column
  int first_half;                // 0 or 1: which half of that panel the tile starts with
  const float* residual;
  float* out;
  int64_t out_row;
  int64_t columns;  // valid ones
};

template <int Rows, int Vectors, typename Weights>
static __attribute__((noinline)) void linear_tile(const LinearTile<Weights>& t) {
  V sum[Rows][Vectors];
  for (int i = 0; i < Rows; ++i)
    for (int v = 0; v < Vectors; ++v) {
      const int64_t left = t.columns - 16 * v;
      sum[i][v] = t.residual == nullptr || left <= 0 ? set(0.0f)
                  : left >= 16 ? load(t.residual + i * t.out_row + 16 * v)
                               : load_tail(t.residual + i * t.out_row + 16 * v, left);
    }
  const int64_t panel = t.k * kWeightPanel;
  const typename Weights::T* w = t.w;
  const float* x = t.x;
  const int64_t x_row = t.x_row;
  for (int64_t k = 0; k < t.k; ++k, w += kWeightPanel, ++x) {
    V column[Vectors];
    if constexpr (Vectors == 1) {
      column[0] = t.first_half == 0 ? Weights::load_half(w, 0) : Weights::load_half(w, 1);
    } else {
      for (int v = 0; v < Vectors; ++v)
        column[v] = Weights::load_half(w + (v / 2) * panel, v % 2);
    }
#pragma GCC unroll 12
    for (int i = 0; i < Rows; ++i) {
      const V value = set(x[i * x_row]);
#pragma GCC unroll 8
      for (int v = 0; v < Vectors; ++v) sum[i][v] = fma(value, column[v], sum[i][v]);
    }
  }
  for (int i = 0; i < Rows; ++i)
    for (int v = 0; v < Vectors; ++v) {
      const int64_t left = t.columns - 16 * v;
      if (left >= 16)
        store(t.out + i * t.out_row + 16 * v, sum[i][v]);
      else if (left > 0)
        store_tail(t.out + i * t.out_row + 16 * v, sum[i][v], left);
    }
}

#if COV_SIMD == 512
constexpr int kLinearRows = 12, kLinearVectors = 2;
#elif COV_SIMD == 256
constexpr int kLinearRows = 6, kLinearVectors = 1;
#else
constexpr int kLinearRows = 4, kLinearVectors = 2;
#endif

// Rows [first, first + rows) of one strip of columns.
template <int Vectors, int RowsMax, typename Weights>
COV_INLINE void linear_strip(LinearTile<Weights> t, int64_t rows) {
  constexpr int kTall = RowsMax;
  while (rows > 0) {
    int64_t done = rows < kTall ? rows : kTall;
    switch (done) {
#define COV_ROWS(n)                                         \
  case n:                                                   \
    linear_tile<(n <= kTall ? n : 1), Vectors, Weights>(t); \
    break;
      COV_ROWS(1) COV_ROWS(2) COV_ROWS(3) COV_ROWS(4) COV_ROWS(5) COV_ROWS(6)
      COV_ROWS(7) COV_ROWS(8) COV_ROWS(9) COV_ROWS(10) COV_ROWS(11) COV_ROWS(12)
#undef COV_ROWS
    }
    rows -= done;
    t.x += done * t.x_row;
    t.out += done * t.out_row;
    if (t.residual != nullptr) t.residual += done * t.out_row;
  }
}

template <typename Weights>
static void linear(int64_t m, int64_t columns, int64_t k, const float* x, int64_t x_row,
                   const typename Weights::T* w, const float* residual, float* out,
                   int64_t out_row) {
  LinearTile<Weights> t{k, x, x_row, w, 0, residual, out, out_row, columns};
  int64_t first = 0;
  const auto at = [&](int64_t column) __attribute__((always_inline)) {
    t.w = w + column / kWeightPanel * (k * kWeightPanel);
    t.first_half = (int)(column % kWeightPanel / 16);
    t.residual = residual == nullptr ? nullptr : residual + column;
    t.out = out + column;
    t.columns = columns - column;
  };
#if COV_SIMD == 512
  // Few rows leave most sums idle: take panels side by side instead.
  if (m <= 2)
    for (; first + 128 <= columns; first += 128) {
      at(first);
      t.columns = 128;
      linear_strip<8, 2>(t, m);
    }
  if (m <= 6)
    for (; first + 64 <= columns; first += 64) {
      at(first);
      t.columns = 64;
      linear_strip<4, 6>(t, m);
    }
#endif
  for (; first < columns; first += 16 * kLinearVectors) {
    at(first);
    if (t.columns > 16 * kLinearVectors) t.columns = 16 * kLinearVectors;
    linear_strip<kLinearVectors, kLinearRows>(t, m);
  }
}

static void linear_f32(int64_t m, int64_t columns, int64_t k, const float* x, int64_t x_row,
                       const float* w, const float* residual, float* out, int64_t out_row) {
  linear<Fp32Weights>(m, columns, k, x, x_row, w, residual, out, out_row);
}
static void linear_bf16(int64_t m, int64_t columns, int64_t k, const float* x, int64_t x_row,
                        const uint16_t* w, const float* residual, float* out, int64_t out_row) {
  linear<Bf16Weights>(m, columns, k, x, x_row, w, residual, out, out_row);
}

}  // namespace COV_ISA
}  // namespace covenant
