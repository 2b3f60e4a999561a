// Matrix products: a block of rows of A against packed panels of B, tile by tile (isa/tile.h).
#pragma once

#include "engine/isa/pack.h"
#include "engine/isa/tile.h"

namespace covenant {
namespace COV_ISA {

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
template <Left Kind, bool Pairs>
COV_INLINE int64_t wide_columns(const Product& p) {
  int64_t j = 0;
#if COV_SIMD == 512
  if (p.m > 3) return 0;
  const TileFunction wide = p.m == 1   ? tile_function<1, 4, Kind, Pairs>
                            : p.m == 2 ? tile_function<2, 4, Kind, Pairs>
                                       : tile_function<3, 4, Kind, Pairs>;
  for (; j + 4 * kPanel <= p.n; j += 4 * kPanel)
    wide({p.steps, p.a, p.a_row, p.a_k, p.b + j / kPanel * p.b_panel, p.b_panel,
          p.init == nullptr ? nullptr : p.init + j, p.init_row, p.c + j, p.c_row, 4 * kPanel, 0,
          (uintptr_t)(p.b + (j / kPanel + 4) * p.b_panel), 4 * kPanel * 8, (uintptr_t)p.a, 0});
#else
  (void)p;
#endif
  return j;
}

// Rows are cut into tiles as evenly as it goes: a small last tile would read B for little work.
struct TileCut {
  int64_t rows, tiles;
  explicit TileCut(int64_t count) : rows(count), tiles((count + kTileRows - 1) / kTileRows) {}
  int64_t first(int64_t tile) const { return rows * tile / tiles; }
};

// Where a block of A lies: its rows, or its tiles, each `tile` words after the other.
struct LeftBlock {
  const Word* a;
  int64_t tile;
};

// Steps [step, step + steps) of the columns from j on, all rows; `a` is A from that step on.
template <Left Kind, bool Pairs>
COV_INLINE void column_block(const Product& p, const LeftBlock& a, int64_t j, int64_t step,
                             int64_t steps, const Word* ahead) {
  const float* init = step > 0 ? p.c : p.init;
  const int64_t init_row = step > 0 ? p.c_row : p.init_row;
  const TileCut cut(p.m);
  const int64_t share = 8 * kPanel / cut.tiles;  // bytes of it per tile and two steps
  const int64_t a_row = Kind == Left::kRows ? p.a_row : 1;
  for (int64_t tile = 0; tile < cut.tiles; ++tile) {
    const int64_t i = cut.first(tile), next = cut.first(tile + 1);
    const float* next_c = tile + 1 < cut.tiles         ? p.c + next * p.c_row + j
                          : j + 2 * kTileColumns <= p.n ? p.c + j + kTileColumns
                                                        : nullptr;
    const bool fetch = Kind == Left::kRows && j == 0 && tile + 1 < cut.tiles && steps > 0;
    const TileArguments t{steps,
                          a.a + (Kind == Left::kTiles ? tile * a.tile : i * a_row),
                          p.a_row,
                          p.a_k,
                          p.b + j / kPanel * p.b_panel + j % kPanel + step * kPanel,
                          p.b_panel,
                          init == nullptr ? nullptr : init + i * init_row + j,
                          init_row,
                          p.c + i * p.c_row + j,
                          p.c_row,
                          p.n - j < kTileColumns ? p.n - j : kTileColumns,
                          (uintptr_t)next_c,
                          (uintptr_t)ahead + (uintptr_t)(tile * share * (steps / 2)),
                          share,
                          fetch ? (uintptr_t)(a.a + next * a_row) : (uintptr_t)a.a,
                          fetch ? 4 * (next - i) * p.a_row / steps : 0};
    if (next - i == kTileRows)
      tile_function<kTileRows, 1, Kind, Pairs>(t);
    else
      tile_for<Kind, Pairs>(next - i)(t);
  }
}

// Few rows or columns: A as it lies, all steps at once.
template <Left Kind, bool Pairs>
static void product_small(const Product& p) {
  for (int64_t j = wide_columns<Kind, Pairs>(p); j < p.n; j += kTileColumns)
    column_block<Kind, Pairs>(p, {p.a, 0}, j, 0, p.steps, p.b + (j / kPanel + 1) * p.b_panel);
}

// A block of A stays in the second-level cache, 384 KiB, with the panels of B passing through it.
// Sums go through C between blocks of steps, unrounded.
constexpr int64_t kBlockRows = 96, kBlockSteps = 1024;

// Steps [step, step + steps) of one block of rows.
template <Left Kind, bool Pairs>
COV_INLINE void row_block(const Product& p, const LeftBlock& a, int64_t step, int64_t steps) {
  const int64_t following = step + steps < p.steps ? step + steps : 0;
  for (int64_t j = 0; j < p.n; j += kTileColumns) {
    const int64_t panel = j / kPanel + 1;
    column_block<Kind, Pairs>(p, a, j, step, steps,
                              panel * kPanel < p.n ? p.b + panel * p.b_panel + step * kPanel
                                                   : p.b + following * kPanel);
  }
}

// Calls body(product of the rows, the first of them, step, steps) for every block; a is not set to
// the block's. All blocks have about as many rows: a small last one would read all of B for little
// work.
template <typename Body>
COV_INLINE void for_blocks(const Product& whole, const Body& body) {
  Product p = whole;
  const int64_t blocks = (whole.m + kBlockRows - 1) / kBlockRows;
  for (int64_t block = 0; block < blocks; ++block) {
    const int64_t first = whole.m * block / blocks;
    p.m = whole.m * (block + 1) / blocks - first;
    p.init = whole.init == nullptr ? nullptr : whole.init + first * whole.init_row;
    p.c = whole.c + first * whole.c_row;
    for (int64_t step = 0; step < p.steps; step += kBlockSteps)
      body(p, first, step, p.steps - step < kBlockSteps ? p.steps - step : kBlockSteps);
  }
}

template <bool Pairs>
static void product_rows(const Product& whole) {
  for_blocks(whole, [](const Product& p, int64_t first, int64_t step, int64_t steps)
                        __attribute__((always_inline)) {
                          const Word* const a = p.a + first * p.a_row + step * p.a_k;
                          row_block<Left::kRows, Pairs>(p, {a, 0}, step, steps);
                        });
}

// Columns of A, or rows that follow each other at a multiple of 1 KiB and so share few sets of the
// first-level cache, are put into tiles first.
template <bool Pairs>
static void product_tiles(const Product& whole) {
  alignas(64) Word block[kBlockRows * kBlockSteps + kTilePad];
  for_blocks(whole, [&](const Product& p, int64_t first, int64_t step, int64_t steps)
                        __attribute__((always_inline)) {
                          const Word* const a = p.a + first * p.a_row + step * p.a_k;
                          const TileCut cut(p.m);
                          for (int64_t tile = 0; tile < cut.tiles; ++tile)
                            pack_tile(a + cut.first(tile) * p.a_row,
                                      cut.first(tile + 1) - cut.first(tile), steps, p.a_row, p.a_k,
                                      block + tile * kTileRows * steps);
                          row_block<Left::kTiles, Pairs>(p, {block, kTileRows * steps}, step,
                                                         steps);
                        });
}

template <bool Pairs>
COV_INLINE void product(const Product& p) {
  if (p.m == 0) return;
  const bool large = p.m > 2 * kTileRows && p.n > 3 * kPanel && p.steps >= 32;
  if (large && (p.a_k != 1 || p.a_row % 256 == 0))
    product_tiles<Pairs>(p);
  else if (large)
    product_rows<Pairs>(p);
  else if (p.a_k == 1)
    product_small<Left::kRows, Pairs>(p);
  else
    product_small<Left::kColumns, Pairs>(p);
}

static void gemm(int64_t m, int64_t n, int64_t k, const float* a, int64_t a_row, int64_t a_k,
                 const float* b, int64_t b_panel, const float* init, int64_t init_row, float* c,
                 int64_t c_row) {
  product<false>({m, n, k, a, a_row, a_k, b, b_panel, init, init_row, c, c_row});
}

}  // namespace COV_ISA
}  // namespace covenant
