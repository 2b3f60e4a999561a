// The product of bf16 pairs on AMX tiles: 32 x 32 sums in four tiles, 32 steps of k at a time.
//
// TDPBF16PS sums the low and the high products of its 32 steps apart and adds the two to the sum at
// the end, so bits differ from those of the other paths; they depend on k alone.
#pragma once

#include "engine/isa/simd.h"
#include "engine/isa/table.h"

namespace covenant {
namespace COV_ISA {

constexpr int64_t kAmxStep = 32;      // of k per instruction
constexpr int64_t kAmxBlock = 512;    // of k between two visits of C
constexpr int64_t kAmxSide = 32;      // rows and columns of C at once
constexpr int64_t kAmxRowBytes = 64;  // of every tile

struct alignas(64) TileConfig {
  uint8_t palette, start_row, reserved[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
};

// Tiles 0 .. 3 are C, 4 and 5 rows of A, 6 and 7 columns of B.
COV_INLINE void configure(int64_t rows) {
  const uint8_t upper = (uint8_t)(rows < 16 ? rows : 16), lower = (uint8_t)(rows - upper);
  const uint8_t tile_rows[8] = {upper, upper, lower, lower, upper, lower, 16, 16};
  TileConfig config = {};
  config.palette = 1;
  for (int i = 0; i < 8; ++i) {
    config.rows[i] = tile_rows[i];
    config.row_bytes[i] = tile_rows[i] == 0 ? 0 : kAmxRowBytes;
  }
  _tile_loadconfig(&config);
}

struct AmxTile {
  int64_t k;
  const Bf16* a;
  int64_t a_row;
  const Bf16* b;
  const float* init;
  int64_t init_row;
  float* c;
  int64_t c_row;
};

// Up to 32 rows and whole 32 columns; `Lower` says whether there are more than 16 rows.
template <bool Lower>
static void amx_tile(const AmxTile& t) {
  const int64_t a_bytes = t.a_row * 2, b_bytes = 4 * kPanel;
  if (t.init == nullptr) {
    _tile_zero(0);
    _tile_zero(1);
    if (Lower) {
      _tile_zero(2);
      _tile_zero(3);
    }
  } else {
    _tile_loadd(0, t.init, t.init_row * 4);
    _tile_loadd(1, t.init + 16, t.init_row * 4);
    if (Lower) {
      _tile_loadd(2, t.init + 16 * t.init_row, t.init_row * 4);
      _tile_loadd(3, t.init + 16 * t.init_row + 16, t.init_row * 4);
    }
  }
  for (int64_t k = 0; k < t.k; k += kAmxStep) {
    _tile_loadd(6, t.b + k * kPanel, b_bytes);
    _tile_loadd(4, t.a + k, a_bytes);
    _tile_loadd(7, t.b + k * kPanel + 32, b_bytes);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    if (Lower) {
      _tile_loadd(5, t.a + 16 * t.a_row + k, a_bytes);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_stored(0, t.c, t.c_row * 4);
  _tile_stored(1, t.c + 16, t.c_row * 4);
  if (Lower) {
    _tile_stored(2, t.c + 16 * t.c_row, t.c_row * 4);
    _tile_stored(3, t.c + 16 * t.c_row + 16, t.c_row * 4);
  }
}

// A tile whose panel has fewer than 32 columns goes through a buffer.
static void amx_narrow(AmxTile t, int64_t rows, int64_t columns) {
  float buffer[kAmxSide * kAmxSide] = {};
  float* const c = t.c;
  if (t.init != nullptr)
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = 0; j < columns; ++j) buffer[i * kAmxSide + j] = t.init[i * t.init_row + j];
  const int64_t c_row = t.c_row;
  t.init = t.c = buffer;
  t.init_row = t.c_row = kAmxSide;
  rows > 16 ? amx_tile<true>(t) : amx_tile<false>(t);
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < columns; ++j) c[i * c_row + j] = buffer[i * kAmxSide + j];
}

static void gemm_bf16(int64_t m, int64_t n, int64_t k, const Bf16* a, int64_t a_row, const Bf16* b,
                      int64_t b_panel, const float* init, int64_t init_row, float* c,
                      int64_t c_row) {
  int64_t configured = 0;
  for (int64_t j = 0; j < n; j += kPanel) {
    const int64_t columns = n - j < kPanel ? n - j : kPanel;
    int64_t at = 0;
    do {  // no steps at all still have to write init
      const int64_t steps = k - at < kAmxBlock ? k - at : kAmxBlock;
      const float* from = at > 0 ? c : init;
      const int64_t from_row = at > 0 ? c_row : init_row;
      for (int64_t i = 0; i < m; i += kAmxSide) {
        const int64_t rows = m - i < kAmxSide ? m - i : kAmxSide;
        if (rows != configured) configure(configured = rows);
        const AmxTile t{steps,
                        a + i * a_row + at,
                        a_row,
                        b + j / kPanel * b_panel + at * kPanel,
                        from == nullptr ? nullptr : from + i * from_row + j,
                        from_row,
                        c + i * c_row + j,
                        c_row};
        if (columns < kPanel)
          amx_narrow(t, rows, columns);
        else
          rows > 16 ? amx_tile<true>(t) : amx_tile<false>(t);
      }
      at += steps;
    } while (at < k);
  }
  if (configured != 0) _tile_release();
}

}  // namespace COV_ISA
}  // namespace covenant
