// bf16 operands: rounding, packing in pairs, and the product of them with fp32 sums.
//
// A pair is one 32-bit word, the value of the lower index in the low half. The sum of one element
// takes each pair's high product first, then the low one, each rounded: what VDPBF16PS does. Paths
// without that instruction widen the operands in this order, so they give the same bits as long as
// no sum is subnormal (the instruction takes such sums as zero).
#pragma once

#include "engine/isa/gemm.h"
#include "engine/isa/pack.h"
#include "engine/isa/round.h"

namespace covenant {
namespace COV_ISA {

// ---- rounding ----------------------------------------------------------------------------------

#if COV_SIMD == 512
// 32 floats to 16 pairs.
COV_INLINE __m512 round_pairs(const float* p) {
  const __m256i low = round_lanes(_mm512_loadu_ps(p)), high = round_lanes(_mm512_loadu_ps(p + 16));
  return _mm512_castsi512_ps(_mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1));
}
// Pairs of the lanes of two rows.
COV_INLINE __m512i zip(__m256i low, __m256i high) {
  return _mm512_or_si512(_mm512_cvtepu16_epi32(low),
                         _mm512_slli_epi32(_mm512_cvtepu16_epi32(high), 16));
}
#endif

static void round_bf16(const float* x, int64_t n, int64_t padded, Bf16* y) {
  int64_t i = 0;
#if COV_SIMD == 512
  for (; i + 32 <= n; i += 32) _mm512_storeu_ps(y + i, round_pairs(x + i));
#endif
  for (; i < n; i += kLanes) {
    const int64_t m = n - i < kLanes ? n - i : kLanes;
    put(y + i, get(x + i, m), m);
  }
  i = n;
  for (; i < padded; ++i) y[i] = 0;
}

// ---- packing -----------------------------------------------------------------------------------

static void pack_transposed_bf16(const float* w, int64_t n, int64_t k, int64_t ld, Bf16* out) {
  const int64_t padded = bf16_padded(k);
  for (int64_t first = 0; first < n; first += kPanel, out += padded * kPanel) {
    const int64_t columns = n - first < kPanel ? n - first : kPanel;
    int64_t j = 0;
#if COV_SIMD == 512
    if (columns == kPanel) {
      for (; j + 32 <= k; j += 32) {
        for (int half = 0; half < 2; ++half) {
          __m512 r[16];
          for (int i = 0; i < 16; ++i) r[i] = round_pairs(w + (first + 16 * half + i) * ld + j);
          store_transposed(r, (Word*)(out + j * kPanel) + 16 * half, kPanel);
        }
      }
    }
#endif
    for (; j < padded; ++j)
      for (int64_t c = 0; c < kPanel; ++c)
        out[j / 2 * 2 * kPanel + 2 * c + j % 2] =
            c < columns && j < k ? round_one(w[(first + c) * ld + j]) : 0;
  }
}

// From rows of floats or of bf16.
COV_INLINE Bf16 as_bf16(float x) { return round_one(x); }
COV_INLINE Bf16 as_bf16(Bf16 x) { return x; }
#if COV_SIMD == 512
COV_INLINE __m256i lanes_of(const float* p) { return round_lanes(_mm512_loadu_ps(p)); }
COV_INLINE __m256i lanes_of(const Bf16* p) { return _mm256_loadu_si256((const __m256i*)p); }
#endif

template <typename T>
COV_INLINE void pack_pairs(const T* w, int64_t columns, int64_t k, int64_t ld, Bf16* out) {
  const int64_t padded = bf16_padded(k);
  int64_t j = 0;
#if COV_SIMD == 512
  if (columns >= kPanel) {
    for (; j + 2 <= k; j += 2)
      for (int half = 0; half < 2; ++half) {
        const T* row = w + j * ld + 16 * half;
        _mm512_storeu_si512(out + j * kPanel + 32 * half, zip(lanes_of(row), lanes_of(row + ld)));
      }
  }
#endif
  for (; j < padded; ++j)
    for (int64_t c = 0; c < kPanel; ++c)
      out[j / 2 * 2 * kPanel + 2 * c + j % 2] = c < columns && j < k ? as_bf16(w[j * ld + c]) : 0;
}

static void pack_panel_bf16(const float* w, int64_t columns, int64_t k, int64_t ld, Bf16* out) {
  pack_pairs(w, columns, k, ld, out);
}

static void zip_panel_bf16(const Bf16* w, int64_t columns, int64_t k, int64_t ld, Bf16* out) {
  pack_pairs(w, columns, k, ld, out);
}

// ---- product -----------------------------------------------------------------------------------

#if defined(COV_AMX)

// In isa/amx.h.

#elif defined(COV_BF16_NATIVE)

static void gemm_bf16(int64_t m, int64_t n, int64_t k, const Bf16* a, int64_t a_row, const Bf16* b,
                      int64_t b_panel, const float* init, int64_t init_row, float* c,
                      int64_t c_row) {
  product<true>({m, n, k / 2, (const Word*)a, a_row / 2, 1, (const Word*)b, b_panel / 2, init,
                 init_row, c, c_row});
}

#else

// out[2 w] = high half of word w, out[2 w + 1] = its low half, for rows of 16-word blocks.
COV_INLINE void widen(const Bf16* p, int64_t words, float* high, float* low, int64_t stride) {
  for (int64_t w = 0; w < words; ++w) {
    const uint32_t h = (uint32_t)p[2 * w + 1] << 16, l = (uint32_t)p[2 * w] << 16;
    __builtin_memcpy(high + w * stride, &h, 4);
    __builtin_memcpy(low + w * stride, &l, 4);
  }
}

static void gemm_bf16(int64_t m, int64_t n, int64_t k, const Bf16* a, int64_t a_row, const Bf16* b,
                      int64_t b_panel, const float* init, int64_t init_row, float* c,
                      int64_t c_row) {
  constexpr int64_t kBlock = 128;  // of k, widened at once
  float wide_a[kTileRows * kBlock], wide_b[kBlock * kPanel];
  for (int64_t j = 0; j < n; j += kPanel) {
    const int64_t columns = n - j < kPanel ? n - j : kPanel;
    int64_t at = 0;
    do {  // no steps at all still have to write init
      const int64_t steps = k - at < kBlock ? k - at : kBlock;
      const float* from = at > 0 ? c : init;
      const int64_t from_row = at > 0 ? c_row : init_row;
      for (int64_t s = 0; s < steps; s += 2)
        widen(b + j / kPanel * b_panel + (at + s) * kPanel, kPanel, wide_b + s * kPanel,
              wide_b + (s + 1) * kPanel, 1);
      for (int64_t i = 0; i < m; i += kTileRows) {
        const int64_t rows = m - i < kTileRows ? m - i : kTileRows;
        for (int64_t r = 0; r < rows; ++r)
          widen(a + (i + r) * a_row + at, steps / 2, wide_a + r * kBlock, wide_a + r * kBlock + 1,
                2);
        product<false>({rows, columns, steps, wide_a, kBlock, 1, wide_b, 0,
                        from == nullptr ? nullptr : from + i * from_row + j, from_row,
                        c + i * c_row + j, c_row});
      }
      at += steps;
    } while (at < k);
  }
}

#endif

}  // namespace COV_ISA
}  // namespace covenant
