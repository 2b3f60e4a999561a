// Matrix product micro-kernel: one tile of an output with all its sums in registers, one fused
// multiply-add per element and step of k. With `Pairs` a step is a pair of bf16 values in one 32-bit
// word and the multiply-add is a bf16 dot product.
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

// The multiply-adds of one word of A with the vectors of B.
template <int Vectors, bool Pairs>
COV_INLINE void add_products(const Word* a, const R (&column)[Vectors], R (&sum)[Vectors]) {
#if COV_SIMD == 512
  // The word as a memory operand of each instruction: a broadcast of its own would take a register
  // and a place in the queues, and the core then looks less far ahead. No intrinsic says this.
  if constexpr (Vectors == kTileVectors && !Pairs) {
    COV_UNROLL for (int v = 0; v < Vectors; ++v)
      asm("vfmadd231ps %1%{1to16%}, %2, %0" : "+v"(sum[v]) : "m"(*a), "v"(column[v]));
    return;
  }
#if defined(COV_BF16_NATIVE)
  if constexpr (Vectors == kTileVectors && Pairs) {
    COV_UNROLL for (int v = 0; v < Vectors; ++v)
      asm("vdpbf16ps %1%{1to16%}, %2, %0" : "+v"(sum[v]) : "m"(*a), "v"(column[v]));
    return;
  }
#endif
#endif
  const R x = rset(*a);
  COV_UNROLL for (int v = 0; v < Vectors; ++v)
    sum[v] = Pairs ? rdot(x, column[v], sum[v]) : rfma(x, column[v], sum[v]);
}

// ---- one tile: Rows x (Panels * kTileColumns) --------------------------------------------------

// How the words of A lie: row after row, column after column, or in tiles of kTileRows rows, step
// after step.
enum class Left { kRows, kColumns, kTiles };

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
  uintptr_t next_c;    // the tile of C after this one, fetched beforehand; 0: none
  uintptr_t ahead;     // what comes next of B, fetched bit by bit; may lie behind its end
  int64_t ahead_step;  // bytes per two steps
  uintptr_t next_a;    // the tile of A after this one where it is read for the first time, likewise
  int64_t next_a_step;  // bytes per step; 0: it is not
};

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

// Moves a pointer. Left alone, GCC keeps several of them in one vector register and pays for every
// use of it with a slot of the vector units.
COV_INLINE void advance(const Word*& p, int64_t words) {
  p += words;
#if COV_SIMD
  asm("" : "+r"(p));
#endif
}

// All products of one column of A with one row of B.
template <int Rows, int Panels, Left Kind, bool Pairs, int Bases>
COV_INLINE void add_step(const Word* const (&base)[Bases], int64_t a_row, const Word* b,
                         int64_t b_panel, R (&sum)[Rows][Panels * kTileVectors]) {
  constexpr int kVectors = Panels * kTileVectors;
  R column[kVectors];
  COV_UNROLL for (int v = 0; v < kVectors; ++v)
    column[v] = rload(b + (v / kTileVectors) * b_panel + (v % kTileVectors) * kWidth);
  COV_UNROLL for (int i = 0; i < Rows; ++i)
    add_products<kVectors, Pairs>(
        Kind == Left::kRows ? base[i / 3] + (i % 3) * a_row : base[0] + i, column, sum[i]);
}

template <int Rows, int Panels, Left Kind, bool Pairs>
COV_INLINE void tile(const TileArguments& t) {
  R sum[Rows][Panels * kTileVectors];
  load_sums<Rows, Panels>(t, sum);
  // Not into the first-level cache: rows of C often share a few of its sets.
  if (t.next_c != 0)
    COV_UNROLL for (int i = 0; i < Rows; ++i)
      for (int byte = 0; byte < kTileColumns * 4; byte += 64)
        __builtin_prefetch((const void*)(t.next_c + (uintptr_t)(i * t.c_row * 4 + byte)), 0, 2);
  // Three rows share a base pointer, so that all rows fit the addressing modes without spills.
  constexpr int kBases = Kind == Left::kRows ? (Rows + 2) / 3 : 1;
  const Word* base[kBases];
  for (int g = 0; g < kBases; ++g) base[g] = t.a + 3 * g * t.a_row;
  const int64_t a_k = Kind == Left::kRows ? 1 : Kind == Left::kTiles ? kTileRows : t.a_k;
  const Word* b = t.b;
  uintptr_t ahead = t.ahead, next_a = t.next_a;
  int64_t left = t.steps;
  for (; left >= 2; left -= 2) {
    __builtin_prefetch((const void*)ahead, 0, 2);
    if (Panels > 1) __builtin_prefetch((const void*)(ahead + (uintptr_t)t.ahead_step / 2), 0, 2);
    ahead += (uintptr_t)t.ahead_step;
    __builtin_prefetch((const void*)next_a, 0, 2);
    __builtin_prefetch((const void*)(next_a + (uintptr_t)t.next_a_step), 0, 2);
    next_a += 2 * (uintptr_t)t.next_a_step;
    add_step<Rows, Panels, Kind, Pairs>(base, t.a_row, b, t.b_panel, sum);
    for (int g = 0; g < kBases; ++g) advance(base[g], a_k);
    b += kPanel;
    add_step<Rows, Panels, Kind, Pairs>(base, t.a_row, b, t.b_panel, sum);
    for (int g = 0; g < kBases; ++g) advance(base[g], a_k);
    b += kPanel;
  }
  if (left > 0) add_step<Rows, Panels, Kind, Pairs>(base, t.a_row, b, t.b_panel, sum);
  store_sums<Rows, Panels>(t, sum);
}

typedef void (*TileFunction)(const TileArguments&);
template <int Rows, int Panels, Left Kind, bool Pairs>
static void tile_function(const TileArguments& t) {
  tile<Rows, Panels, Kind, Pairs>(t);
}

template <Left Kind, bool Pairs>
static TileFunction tile_for(int64_t rows) {
#define COV_TILE(n) tile_function<(n <= kTileRows ? n : 1), 1, Kind, Pairs>
  static const TileFunction functions[13] = {
      nullptr,     COV_TILE(1), COV_TILE(2), COV_TILE(3),  COV_TILE(4),  COV_TILE(5), COV_TILE(6),
      COV_TILE(7), COV_TILE(8), COV_TILE(9), COV_TILE(10), COV_TILE(11), COV_TILE(12)};
#undef COV_TILE
  return functions[rows];
}

}  // namespace COV_ISA
}  // namespace covenant
