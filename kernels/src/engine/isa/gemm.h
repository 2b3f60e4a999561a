// Matrix product micro-kernels: a block of rows of A against packed panels of B, everything of one
// output tile in registers, one fused multiply-add per element and step of k.
#pragma once

#include "engine/isa/simd.h"
#include "engine/isa/table.h"

namespace covenant {
namespace COV_ISA {

// ---- register type of the kernel -------------------------------------------------------------

#if COV_SIMD == 512
typedef __m512 R;
constexpr int kWidth = 16;       // floats in R
constexpr int kTileVectors = 2;  // R per panel and tile: the whole panel
constexpr int kTileRows = 12;    // 24 sums, 2 columns of B, broadcasts: 32 registers
COV_INLINE R rload(const float* p) { return _mm512_loadu_ps(p); }
COV_INLINE void rstore(float* p, R a) { _mm512_storeu_ps(p, a); }
COV_INLINE R rset(float x) { return _mm512_set1_ps(x); }
COV_INLINE R rfma(R a, R b, R c) { return _mm512_fmadd_ps(a, b, c); }
#elif COV_SIMD == 256
typedef __m256 R;
constexpr int kWidth = 8;
constexpr int kTileVectors = 2;  // half a panel
constexpr int kTileRows = 6;     // 12 sums of 16 registers
COV_INLINE R rload(const float* p) { return _mm256_loadu_ps(p); }
COV_INLINE void rstore(float* p, R a) { _mm256_storeu_ps(p, a); }
COV_INLINE R rset(float x) { return _mm256_set1_ps(x); }
COV_INLINE R rfma(R a, R b, R c) { return _mm256_fmadd_ps(a, b, c); }
#else
struct R {
  float f[4];
};
constexpr int kWidth = 4;
constexpr int kTileVectors = 2;
constexpr int kTileRows = 4;
COV_INLINE R rload(const float* p) { return {{p[0], p[1], p[2], p[3]}}; }
COV_INLINE void rstore(float* p, R a) {
  for (int i = 0; i < 4; ++i) p[i] = a.f[i];
}
COV_INLINE R rset(float x) { return {{x, x, x, x}}; }
COV_INLINE R rfma(R a, R b, R c) {
  for (int i = 0; i < 4; ++i) c.f[i] = __builtin_fmaf(a.f[i], b.f[i], c.f[i]);
  return c;
}
#endif
constexpr int kTileColumns = kTileVectors * kWidth;

struct TileArguments {
  int64_t k;
  const float* a;
  int64_t a_row, a_k;
  const float* b;     // first column of the tile inside its panel
  int64_t b_panel;    // to the same column of the next panel
  const float* init;  // null: zeros
  int64_t init_row;
  float* c;
  int64_t c_row;
  int64_t columns;  // valid columns of the whole tile
};

// ---- one tile: Rows x (Panels * kTileColumns) --------------------------------------------------

template <int Rows, int Panels, bool RowMajor>
COV_INLINE void tile(const TileArguments& t) {
  constexpr int kVectors = Panels * kTileVectors;
  constexpr int64_t kColumns = Panels * kTileColumns;
  R sum[Rows][kVectors];
  const bool partial = t.columns < kColumns;
  // Vector v covers the tile's columns v % kTileVectors of panel v / kTileVectors.
  if (t.init == nullptr) {
    for (int i = 0; i < Rows; ++i)
      for (int v = 0; v < kVectors; ++v) sum[i][v] = rset(0.0f);
  } else if (!partial) {
    for (int i = 0; i < Rows; ++i)
      for (int v = 0; v < kVectors; ++v)
        sum[i][v] = rload(t.init + i * t.init_row + (v / kTileVectors) * kPanel +
                          (v % kTileVectors) * kWidth);
  } else {
    for (int i = 0; i < Rows; ++i) {
      float row[kColumns] = {};
      for (int64_t j = 0; j < t.columns; ++j) row[j] = t.init[i * t.init_row + j];
      for (int v = 0; v < kVectors; ++v) sum[i][v] = rload(row + v * kWidth);
    }
  }
  // Three rows share a base pointer, so that all rows fit the addressing modes without spills.
  constexpr int kBases = (Rows + 2) / 3;
  const float* base[kBases];
  for (int g = 0; g < kBases; ++g) base[g] = t.a + 3 * g * t.a_row;
  const float* b = t.b;
  const int64_t row1 = t.a_row, row2 = 2 * t.a_row;
  for (int64_t k = 0; k < t.k; ++k) {
    R column[kVectors];
    for (int v = 0; v < kVectors; ++v)
      column[v] = rload(b + (v / kTileVectors) * t.b_panel + (v % kTileVectors) * kWidth);
#pragma GCC unroll 12
    for (int i = 0; i < Rows; ++i) {
      const float* p = RowMajor ? base[i / 3] + (i % 3 == 0   ? 0
                                                 : i % 3 == 1 ? row1
                                                              : row2)
                                : base[0] + i;
      const R x = rset(*p);
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) sum[i][v] = rfma(x, column[v], sum[i][v]);
    }
    if (RowMajor)
      for (int g = 0; g < kBases; ++g) base[g] += 1;
    else
      base[0] += t.a_k;
    b += kPanel;
  }
  if (!partial) {
    for (int i = 0; i < Rows; ++i)
      for (int v = 0; v < kVectors; ++v)
        rstore(t.c + i * t.c_row + (v / kTileVectors) * kPanel + (v % kTileVectors) * kWidth,
               sum[i][v]);
    return;
  }
  for (int i = 0; i < Rows; ++i) {
    float row[kColumns];
    for (int v = 0; v < kVectors; ++v) rstore(row + v * kWidth, sum[i][v]);
    for (int64_t j = 0; j < t.columns; ++j) t.c[i * t.c_row + j] = row[j];
  }
}

typedef void (*TileFunction)(const TileArguments&);
template <int Rows, int Panels, bool RowMajor>
static void tile_function(const TileArguments& t) {
  tile<Rows, Panels, RowMajor>(t);
}

template <bool RowMajor>
static TileFunction tile_for(int64_t rows) {
#define COV_TILE(n) tile_function<(n <= kTileRows ? n : 1), 1, RowMajor>
  static const TileFunction functions[13] = {
      nullptr,     COV_TILE(1), COV_TILE(2), COV_TILE(3),  COV_TILE(4),  COV_TILE(5), COV_TILE(6),
      COV_TILE(7), COV_TILE(8), COV_TILE(9), COV_TILE(10), COV_TILE(11), COV_TILE(12)};
#undef COV_TILE
  return functions[rows];
}

// ---- whole product -----------------------------------------------------------------------------

template <bool RowMajor>
static void gemm_layout(int64_t m, int64_t n, int64_t k, const float* a, int64_t a_row, int64_t a_k,
                        const float* b, int64_t b_panel, const float* init, int64_t init_row,
                        float* c, int64_t c_row) {
  TileArguments t{k, a, a_row, a_k, b, b_panel, init, init_row, c, c_row, 0};
  const int64_t a_step = RowMajor ? a_row : 1;
  int64_t first = 0;
#if COV_SIMD == 512
  // Few rows leave most sums idle: take four panels side by side instead.
  if (m <= 3) {
    const TileFunction wide = m == 1   ? tile_function<1, 4, RowMajor>
                              : m == 2 ? tile_function<2, 4, RowMajor>
                                       : tile_function<3, 4, RowMajor>;
    for (; first + 4 * kPanel <= n; first += 4 * kPanel) {
      t.b = b + first / kPanel * b_panel;
      t.init = init == nullptr ? nullptr : init + first;
      t.c = c + first;
      t.columns = 4 * kPanel;
      wide(t);
    }
  }
#endif
  for (int64_t j = first; j < n; j += kTileColumns) {
    t.b = b + j / kPanel * b_panel + j % kPanel;
    t.columns = n - j < kTileColumns ? n - j : kTileColumns;
    for (int64_t i = 0; i < m; i += kTileRows) {
      t.a = a + i * a_step;
      t.init = init == nullptr ? nullptr : init + i * init_row + j;
      t.c = c + i * c_row + j;
      const int64_t rows = m - i < kTileRows ? m - i : kTileRows;
      if (rows == kTileRows)
        tile_function<kTileRows, 1, RowMajor>(t);
      else
        tile_for<RowMajor>(rows)(t);
    }
  }
}

static void gemm(int64_t m, int64_t n, int64_t k, const float* a, int64_t a_row, int64_t a_k,
                 const float* b, int64_t b_panel, const float* init, int64_t init_row, float* c,
                 int64_t c_row) {
  if (a_k == 1)
    gemm_layout<true>(m, n, k, a, a_row, a_k, b, b_panel, init, init_row, c, c_row);
  else
    gemm_layout<false>(m, n, k, a, a_row, a_k, b, b_panel, init, init_row, c, c_row);
}

// ---- packing -----------------------------------------------------------------------------------

static void pack_panel(const float* w, int64_t columns, int64_t k, int64_t ld, float* out) {
  if (columns >= kPanel) {
    for (int64_t j = 0; j < k; ++j) {
      store(out + j * kPanel, load(w + j * ld));
      store(out + j * kPanel + kLanes, load(w + j * ld + kLanes));
    }
    return;
  }
  for (int64_t j = 0; j < k; ++j)
    for (int64_t c = 0; c < kPanel; ++c) out[j * kPanel + c] = c < columns ? w[j * ld + c] : 0.0f;
}

#if COV_SIMD == 512
// 16 rows of 16 floats to 16 columns.
COV_INLINE void transpose16(const float* w, int64_t ld, float* out) {
  __m512 r[16], s[16];
  for (int i = 0; i < 16; ++i) r[i] = _mm512_loadu_ps(w + i * ld);
  for (int i = 0; i < 16; i += 2) {
    s[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
    s[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    for (int j = 0; j < 2; ++j) {
      const __m512d a = _mm512_castps_pd(s[i + j]), b = _mm512_castps_pd(s[i + j + 2]);
      r[i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
      r[i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
    }
  }
  // r[4 q + c]: 128-bit lane l holds column 4 l + c of rows 4 q .. 4 q + 3.
  for (int c = 0; c < 4; ++c) {
    const __m512 a = _mm512_shuffle_f32x4(r[c], r[4 + c], 0x88);  // lanes 0, 2 of q 0, 1
    const __m512 b = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0x88);
    const __m512 d = _mm512_shuffle_f32x4(r[c], r[4 + c], 0xdd);  // lanes 1, 3
    const __m512 e = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0xdd);
    _mm512_storeu_ps(out + (0 + c) * kPanel, _mm512_shuffle_f32x4(a, b, 0x88));
    _mm512_storeu_ps(out + (8 + c) * kPanel, _mm512_shuffle_f32x4(a, b, 0xdd));
    _mm512_storeu_ps(out + (4 + c) * kPanel, _mm512_shuffle_f32x4(d, e, 0x88));
    _mm512_storeu_ps(out + (12 + c) * kPanel, _mm512_shuffle_f32x4(d, e, 0xdd));
  }
}
#endif

static void pack_transposed(const float* w, int64_t n, int64_t k, int64_t ld, float* out) {
  for (int64_t first = 0; first < n; first += kPanel, out += k * kPanel) {
    const int64_t columns = n - first < kPanel ? n - first : kPanel;
    int64_t j = 0;
#if COV_SIMD == 512
    if (columns == kPanel) {
      for (; j + 16 <= k; j += 16) {
        transpose16(w + first * ld + j, ld, out + j * kPanel);
        transpose16(w + (first + 16) * ld + j, ld, out + j * kPanel + 16);
      }
    }
#endif
    for (; j < k; ++j)
      for (int64_t c = 0; c < kPanel; ++c)
        out[j * kPanel + c] = c < columns ? w[(first + c) * ld + j] : 0.0f;
  }
}

}  // namespace COV_ISA
}  // namespace covenant
