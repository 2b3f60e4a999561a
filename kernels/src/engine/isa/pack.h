// Packing of right-hand sides into panels of 32 columns, and of left-hand ones into tiles of rows.
#pragma once

#include "engine/isa/tile.h"

namespace covenant {
namespace COV_ISA {

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
// The transpose of 16 vectors of 16 words, to 16 rows of `out`.
COV_INLINE void store_transposed(__m512 (&r)[16], Word* out, int64_t out_row) {
  __m512 s[16];
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
    s[c] = _mm512_shuffle_f32x4(a, b, 0x88);
    s[8 + c] = _mm512_shuffle_f32x4(a, b, 0xdd);
    s[4 + c] = _mm512_shuffle_f32x4(d, e, 0x88);
    s[12 + c] = _mm512_shuffle_f32x4(d, e, 0xdd);
  }
  // In this order rows of `out` may be closer than 16: each overwrites what the one before has too
  // much.
  for (int i = 0; i < 16; ++i) _mm512_storeu_ps(out + i * out_row, s[i]);
}

// 16 rows of 16 floats to 16 columns of a panel.
COV_INLINE void transpose16(const float* w, int64_t ld, float* out) {
  __m512 r[16];
  for (int i = 0; i < 16; ++i) r[i] = _mm512_loadu_ps(w + i * ld);
  store_transposed(r, out, kPanel);
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

// Words behind the last tile that packing may overwrite.
constexpr int64_t kTilePad = 16;

// Up to kTileRows rows of A into a tile: out[s * kTileRows + i] = a[i * a_row + s * a_k].
static void pack_tile(const Word* a, int64_t rows, int64_t steps, int64_t a_row, int64_t a_k,
                      Word* out) {
  int64_t s = 0;
#if COV_SIMD == 512
  if (a_k == 1) {
    for (; s + 16 <= steps; s += 16) {
      __m512 r[16];
      for (int64_t i = 0; i < 16; ++i)
        r[i] = i < kTileRows ? _mm512_loadu_ps(a + (i < rows ? i : rows - 1) * a_row + s)
                             : _mm512_setzero_ps();
      store_transposed(r, out + s * kTileRows, kTileRows);
    }
  }
#endif
  if (a_row == 1 && rows == kTileRows)
    for (; s < steps; ++s) __builtin_memcpy(out + s * kTileRows, a + s * a_k, kTileRows * 4);
  for (; s < steps; ++s)
    for (int64_t i = 0; i < rows; ++i) out[s * kTileRows + i] = a[i * a_row + s * a_k];
}

}  // namespace COV_ISA
}  // namespace covenant
