// The product whose left-hand side lies transposed, token after token, as gradients of matrices
// need it: sum(C) += A^T B. Same bits as the product of the transpose.
#pragma once

#include "engine/isa/bf16.h"

namespace covenant {
namespace COV_ISA {

#if defined(COV_BF16_NATIVE) && !defined(COV_AMX)

// Pairs of rows of A are what a tile wants to hold, so they are put into tiles as they pass and A
// is never transposed. `a`: the first of 2 * steps rows, of which `present` are there and the
// others count as zeros; its columns are cut into tiles of `stride` words.
static void zip_tiles(const Bf16* a, int64_t a_row, int64_t present, const TileCut& cut,
                      int64_t steps, int64_t stride, Word* out) {
  constexpr int64_t kAhead = 16;  // rows
  int64_t first[kBlockRows / kTileRows];
  __mmask16 lanes[kBlockRows / kTileRows];
  for (int64_t tile = 0; tile < cut.tiles; ++tile) {
    first[tile] = cut.first(tile);
    lanes[tile] = (__mmask16)((1u << (cut.first(tile + 1) - first[tile])) - 1);
  }
  for (int64_t s = 0; s < steps; ++s) {
    const Bf16 *const even = a + 2 * s * a_row, *const odd = even + a_row;
    const __mmask16 low = 2 * s < present ? 0xffff : 0, high = 2 * s + 1 < present ? 0xffff : 0;
    for (int64_t column = 0; column < cut.rows; column += 32) {
      __builtin_prefetch(even + kAhead * a_row + column);
      __builtin_prefetch(odd + kAhead * a_row + column);
    }
    // Each writes 16 words; the next step overwrites what is too much.
    for (int64_t tile = 0; tile < cut.tiles; ++tile)
      _mm512_storeu_si512(
          out + tile * stride + s * kTileRows,
          zip(_mm256_maskz_loadu_epi16((__mmask16)(lanes[tile] & low), even + first[tile]),
              _mm256_maskz_loadu_epi16((__mmask16)(lanes[tile] & high), odd + first[tile])));
  }
}

static void gemm_bf16_transposed(int64_t m, int64_t n, int64_t k, const Bf16* a, int64_t a_row,
                                 const Bf16* b, int64_t b_panel, const float* init,
                                 int64_t init_row, float* c, int64_t c_row) {
  // A pad behind each tile: for what the last step writes too much, and lest the tiles share sets
  // of the first-level cache.
  alignas(64) Word block[kBlockRows * kBlockSteps + kBlockRows / kTileRows * kTilePad];
  const Product whole{.m = m,
                      .n = n,
                      .steps = bf16_padded(k) / 2,
                      .a = nullptr,
                      .a_row = 0,
                      .a_k = 0,
                      .b = (const Word*)b,
                      .b_panel = b_panel / 2,
                      .init = init,
                      .init_row = init_row,
                      .c = c,
                      .c_row = c_row};
  for_blocks(whole, [&](const Product& p, int64_t first, int64_t step, int64_t steps)
                        __attribute__((always_inline)) {
                          const int64_t stride = kTileRows * steps + kTilePad;
                          zip_tiles(a + 2 * step * a_row + first, a_row, k - 2 * step, TileCut(p.m),
                                    steps, stride, block);
                          row_block<Left::kTiles, true>(p, {block, stride}, step, steps);
                        });
}

#else

// out[c * out_row + t] = x[t * ld + c] for t < rows, zeros up to the padded number of rows.
static void transpose_bf16(const Bf16* x, int64_t rows, int64_t columns, int64_t ld, Bf16* out,
                           int64_t out_row) {
  int64_t first = 0;
#if COV_SIMD == 512
  for (; first + 32 <= rows; first += 32) {
    int64_t c = 0;
    for (; c + 16 <= columns; c += 16) {
      __m512 r[16];
      for (int i = 0; i < 16; ++i) {
        const Bf16* row = x + (first + 2 * i) * ld + c;
        r[i] = _mm512_castsi512_ps(zip(lanes_of(row), lanes_of(row + ld)));
      }
      store_transposed(r, (Word*)(out + c * out_row + first), out_row / 2);
    }
    for (; c < columns; ++c)
      for (int64_t t = first; t < first + 32; ++t) out[c * out_row + t] = x[t * ld + c];
  }
#endif
  const int64_t padded = bf16_padded(rows);
  for (int64_t c = 0; c < columns; ++c)
    for (int64_t t = first; t < padded; ++t) out[c * out_row + t] = t < rows ? x[t * ld + c] : 0;
}

static void gemm_bf16_transposed(int64_t m, int64_t n, int64_t k, const Bf16* a, int64_t a_row,
                                 const Bf16* b, int64_t b_panel, const float* init,
                                 int64_t init_row, float* c, int64_t c_row) {
  constexpr int64_t kRows = 64, kSteps = 512;  // sums go through C between them, unrounded
  constexpr int64_t kStride = kSteps + 32;
  Bf16 block[kRows * kStride];
  for (int64_t i = 0; i < m; i += kRows) {
    const int64_t rows = m - i < kRows ? m - i : kRows;
    for (int64_t at = 0; at < k; at += kSteps) {
      const int64_t steps = k - at < kSteps ? k - at : kSteps;
      transpose_bf16(a + at * a_row + i, steps, rows, a_row, block, kStride);
      const float* const from = at > 0 ? c : init;
      const int64_t from_row = at > 0 ? c_row : init_row;
      gemm_bf16(rows, n, bf16_padded(steps), block, kStride, b + at * kPanel, b_panel,
                from == nullptr ? nullptr : from + i * from_row, from_row, c + i * c_row, c_row);
    }
  }
}

#endif

}  // namespace COV_ISA
}  // namespace covenant
