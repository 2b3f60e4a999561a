// Matrix product micro-kernels: a block of rows of A against packed panels of B, everything of one
// output tile in registers, one fused multiply-add per element and step of k. With `Pairs` a step
// is a pair of bf16 values in one 32-bit word and the multiply-add is a bf16 dot product.
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
COV_INLINE R rload(const Word* p) { return _mm512_loadu_ps(p); }
COV_INLINE void rstore(float* p, R a) { _mm512_storeu_ps(p, a); }
COV_INLINE R rset(float x) { return _mm512_set1_ps(x); }
COV_INLINE R rfma(R a, R b, R c) { return _mm512_fmadd_ps(a, b, c); }
#if defined(COV_BF16_NATIVE)
// Per lane: c + a.high * b.high, rounded, then + a.low * b.low, rounded.
COV_INLINE R rdot(R a, R b, R c) { return _mm512_dpbf16_ps(c, (__m512bh)a, (__m512bh)b); }
#else
COV_INLINE R rdot(R, R, R c) { return c; }  // never called: operands are widened first
#endif
#elif COV_SIMD == 256
typedef __m256 R;
constexpr int kWidth = 8;
constexpr int kTileVectors = 2;  // half a panel
constexpr int kTileRows = 6;     // 12 sums of 16 registers
COV_INLINE R rload(const Word* p) { return _mm256_loadu_ps(p); }
COV_INLINE void rstore(float* p, R a) { _mm256_storeu_ps(p, a); }
COV_INLINE R rset(float x) { return _mm256_set1_ps(x); }
COV_INLINE R rfma(R a, R b, R c) { return _mm256_fmadd_ps(a, b, c); }
COV_INLINE R rdot(R, R, R c) { return c; }  // never called: operands are widened first
#else
struct R {
  float f[4];
};
constexpr int kWidth = 4;
constexpr int kTileVectors = 2;
constexpr int kTileRows = 4;
COV_INLINE R rload(const Word* p) { return {{p[0], p[1], p[2], p[3]}}; }
COV_INLINE void rstore(float* p, R a) {
  for (int i = 0; i < 4; ++i) p[i] = a.f[i];
}
COV_INLINE R rset(float x) { return {{x, x, x, x}}; }
COV_INLINE R rfma(R a, R b, R c) {
  for (int i = 0; i < 4; ++i) c.f[i] = __builtin_fmaf(a.f[i], b.f[i], c.f[i]);
  return c;
}
COV_INLINE R rdot(R, R, R c) { return c; }  // never called: operands are widened first
#endif
constexpr int kTileColumns = kTileVectors * kWidth;

// Sums live in registers only if every loop over them is unrolled.
#define COV_UNROLL _Pragma("GCC unroll 16")

// Steps of k done at once when there are several tiles of rows: one panel's share of the steps
// stays in the second-level cache. Sums go through C in between, unrounded.
constexpr int64_t kStepBlock = 1024;

struct TileArguments {
  int64_t steps;  // of k, or pairs of it
  const Word* a;
  int64_t a_row, a_k;  // words
  const Word* b;       // first column of the tile inside its panel
  int64_t b_panel;     // to the same column of the next panel
  const float* init;   // null: zeros
  int64_t init_row;
  float* c;
  int64_t c_row;
  int64_t columns;  // valid columns of the whole tile
  uintptr_t ahead;     // what comes next of B, fetched bit by bit; may lie behind its end
  int64_t ahead_step;  // bytes per step
};

// ---- one tile: Rows x (Panels * kTileColumns) --------------------------------------------------

template <int Rows, int Panels>
COV_INLINE void load_sums(const TileArguments& t, R (&sum)[Rows][Panels * kTileVectors]) {
  constexpr int kVectors = Panels * kTileVectors;
  constexpr int64_t kColumns = Panels * kTileColumns;
  // Vector v covers the tile's columns v % kTileVectors of panel v / kTileVectors.
  if (t.init == nullptr) {
    COV_UNROLL for (int i = 0; i < Rows; ++i)
      COV_UNROLL for (int v = 0; v < kVectors; ++v) sum[i][v] = rset(0.0f);
  } else if (t.columns >= kColumns) {
    COV_UNROLL for (int i = 0; i < Rows; ++i)
      COV_UNROLL for (int v = 0; v < kVectors; ++v)
        sum[i][v] = rload(t.init + i * t.init_row + (v / kTileVectors) * kPanel +
                          (v % kTileVectors) * kWidth);
  } else {
    COV_UNROLL for (int i = 0; i < Rows; ++i) {
      float row[kColumns] = {};
      for (int64_t j = 0; j < t.columns; ++j) row[j] = t.init[i * t.init_row + j];
      COV_UNROLL for (int v = 0; v < kVectors; ++v) sum[i][v] = rload(row + v * kWidth);
    }
  }
}

template <int Rows, int Panels>
COV_INLINE void store_sums(const TileArguments& t, const R (&sum)[Rows][Panels * kTileVectors]) {
  constexpr int kVectors = Panels * kTileVectors;
  constexpr int64_t kColumns = Panels * kTileColumns;
  if (t.columns >= kColumns) {
    COV_UNROLL for (int i = 0; i < Rows; ++i)
      COV_UNROLL for (int v = 0; v < kVectors; ++v)
        rstore(t.c + i * t.c_row + (v / kTileVectors) * kPanel + (v % kTileVectors) * kWidth,
               sum[i][v]);
    return;
  }
  COV_UNROLL for (int i = 0; i < Rows; ++i) {
    float row[kColumns];
    COV_UNROLL for (int v = 0; v < kVectors; ++v) rstore(row + v * kWidth, sum[i][v]);
    for (int64_t j = 0; j < t.columns; ++j) t.c[i * t.c_row + j] = row[j];
  }
}

template <int Rows, int Panels, bool RowMajor, bool Pairs>
COV_INLINE void tile(const TileArguments& t) {
  constexpr int kVectors = Panels * kTileVectors;
  R sum[Rows][kVectors];
  load_sums<Rows, Panels>(t, sum);
  // Three rows share a base pointer, so that all rows fit the addressing modes without spills.
  constexpr int kBases = (Rows + 2) / 3;
  const Word* base[kBases];
  for (int g = 0; g < kBases; ++g) base[g] = t.a + 3 * g * t.a_row;
  const Word* b = t.b;
  const int64_t row1 = t.a_row, row2 = 2 * t.a_row;
  for (int64_t step = 0; step < t.steps; ++step) {
    __builtin_prefetch((const void*)(t.ahead + (uintptr_t)(step * t.ahead_step)), 0, 2);
    R column[kVectors];
    COV_UNROLL for (int v = 0; v < kVectors; ++v)
      column[v] = rload(b + (v / kTileVectors) * t.b_panel + (v % kTileVectors) * kWidth);
    COV_UNROLL for (int i = 0; i < Rows; ++i) {
      const Word* p = RowMajor ? base[i / 3] + (i % 3 == 0   ? 0
                                                : i % 3 == 1 ? row1
                                                             : row2)
                               : base[0] + i;
      const R x = rset(*p);
      COV_UNROLL for (int v = 0; v < kVectors; ++v)
        sum[i][v] = Pairs ? rdot(x, column[v], sum[i][v]) : rfma(x, column[v], sum[i][v]);
    }
    if (RowMajor)
      for (int g = 0; g < kBases; ++g) base[g] += 1;
    else
      base[0] += t.a_k;
    b += kPanel;
  }
  store_sums<Rows, Panels>(t, sum);
}

typedef void (*TileFunction)(const TileArguments&);
template <int Rows, int Panels, bool RowMajor, bool Pairs>
static void tile_function(const TileArguments& t) {
  tile<Rows, Panels, RowMajor, Pairs>(t);
}

template <bool RowMajor, bool Pairs>
static TileFunction tile_for(int64_t rows) {
#define COV_TILE(n) tile_function<(n <= kTileRows ? n : 1), 1, RowMajor, Pairs>
  static const TileFunction functions[13] = {
      nullptr,     COV_TILE(1), COV_TILE(2), COV_TILE(3),  COV_TILE(4),  COV_TILE(5), COV_TILE(6),
      COV_TILE(7), COV_TILE(8), COV_TILE(9), COV_TILE(10), COV_TILE(11), COV_TILE(12)};
#undef COV_TILE
  return functions[rows];
}

// ---- whole product -----------------------------------------------------------------------------

// Operands of a product in words; `b` is the start of panel 0.
struct Product {
  int64_t m, n, steps;
  const Word* a;
  int64_t a_row, a_k;
  const Word* b;
  int64_t b_panel;
  const float* init;
  int64_t init_row;
  float* c;
  int64_t c_row;
};

// Columns of few rows, four panels side by side: one panel would leave most sums idle. Returns the
// first column that is not done.
template <bool RowMajor, bool Pairs>
COV_INLINE int64_t wide_columns(const Product& p) {
  int64_t j = 0;
#if COV_SIMD == 512
  if (p.m > 3) return 0;
  const TileFunction wide = p.m == 1   ? tile_function<1, 4, RowMajor, Pairs>
                            : p.m == 2 ? tile_function<2, 4, RowMajor, Pairs>
                                       : tile_function<3, 4, RowMajor, Pairs>;
  for (; j + 4 * kPanel <= p.n; j += 4 * kPanel)
    wide({p.steps, p.a, p.a_row, p.a_k, p.b + j / kPanel * p.b_panel, p.b_panel,
          p.init == nullptr ? nullptr : p.init + j, p.init_row, p.c + j, p.c_row, 4 * kPanel,
          (uintptr_t)(p.b + (j / kPanel + 4) * p.b_panel), 4 * kPanel * 4});
#else
  (void)p;
#endif
  return j;
}

// Steps [step, step + steps) of the columns [j, j + columns), all rows; A starts at that step.
template <bool RowMajor, bool Pairs>
COV_INLINE void column_block(const Product& p, const Word* a, int64_t a_row, int64_t j,
                             int64_t step, int64_t steps, const Word* ahead) {
  const int64_t a_step = RowMajor ? a_row : 1;
  const float* init = step > 0 ? p.c : p.init;
  const int64_t init_row = step > 0 ? p.c_row : p.init_row;
  const int64_t tiles = (p.m + kTileRows - 1) / kTileRows;
  const int64_t share = 4 * kPanel / tiles;  // bytes per step
  for (int64_t i = 0; i < p.m; i += kTileRows) {
    const TileArguments t{steps,
                          a + i * a_step,
                          a_row,
                          p.a_k,
                          p.b + j / kPanel * p.b_panel + j % kPanel + step * kPanel,
                          p.b_panel,
                          init == nullptr ? nullptr : init + i * init_row + j,
                          init_row,
                          p.c + i * p.c_row + j,
                          p.c_row,
                          p.n - j < kTileColumns ? p.n - j : kTileColumns,
                          (uintptr_t)ahead + (uintptr_t)(i / kTileRows * share * steps),
                          share};
    const int64_t rows = p.m - i < kTileRows ? p.m - i : kTileRows;
    if (rows == kTileRows)
      tile_function<kTileRows, 1, RowMajor, Pairs>(t);
    else
      tile_for<RowMajor, Pairs>(rows)(t);
  }
}

template <bool RowMajor, bool Pairs>
static void product(const Product& p) {
  const int64_t a_k = RowMajor ? 1 : p.a_k;
  const int64_t block = p.m <= kTileRows ? p.steps : kStepBlock;
  for (int64_t j = wide_columns<RowMajor, Pairs>(p); j < p.n; j += kTileColumns) {
    int64_t step = 0;
    do {  // no steps at all still have to write init
      const int64_t steps = p.steps - step < block ? p.steps - step : block;
      column_block<RowMajor, Pairs>(p, p.a + step * a_k, p.a_row, j, step, steps,
                                    p.b + j / kPanel * p.b_panel + (step + steps) * kPanel);
      step += steps;
    } while (step < p.steps);
  }
}

// Rows that follow each other at a multiple of 1 KiB share few sets of the first-level cache: a
// block of them is copied closer together before use.
static void product_copied(Product p) {
  constexpr int64_t kRows = 8 * kTileRows, kSteps = 256, kRow = kSteps + 16;
  float block[kRows * kRow];
  const Product whole = p;
  for (int64_t first = 0; first < whole.m; first += kRows) {
    p.m = whole.m - first < kRows ? whole.m - first : kRows;
    p.init = whole.init == nullptr ? nullptr : whole.init + first * whole.init_row;
    p.c = whole.c + first * whole.c_row;
    for (int64_t step = 0; step < p.steps; step += kSteps) {
      const int64_t steps = p.steps - step < kSteps ? p.steps - step : kSteps;
      for (int64_t i = 0; i < p.m; ++i)
        __builtin_memcpy(block + i * kRow, whole.a + (first + i) * whole.a_row + step,
                         (uint64_t)steps * 4);
      for (int64_t j = 0; j < p.n; j += kTileColumns)
        column_block<true, false>(p, block, kRow, j, step, steps,
                                  p.b + (j / kPanel + 1) * p.b_panel + step * kPanel);
    }
  }
}

static void gemm(int64_t m, int64_t n, int64_t k, const float* a, int64_t a_row, int64_t a_k,
                 const float* b, int64_t b_panel, const float* init, int64_t init_row, float* c,
                 int64_t c_row) {
  const Product p{m, n, k, a, a_row, a_k, b, b_panel, init, init_row, c, c_row};
  if (a_k == 1 && a_row % 256 == 0 && m > 2 * kTileRows && n > 2 * kPanel && k >= 256)
    product_copied(p);
  else if (a_k == 1)
    product<true, false>(p);
  else
    product<false, false>(p);
}

}  // namespace COV_ISA
}  // namespace covenant
