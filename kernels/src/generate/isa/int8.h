// Products of bytes: activations q + 128 (unsigned) with weights (signed), four at a time.
//   out = residual + (sum (q + 128) w - 128 sum w) * (row scale * column scale)
#pragma once

#include "engine/isa/simd.h"
#include "generate/kernels.h"

namespace covenant {
namespace COV_ISA {

// ---- sums of 16 columns ------------------------------------------------------------------------

#if COV_SIMD == 512 && COV_VNNI

struct Sums {
  __m512i s;
};
struct Columns {
  __m512i w;
};
struct Four {
  __m512i a;
};
COV_INLINE Sums no_sums() { return {_mm512_setzero_si512()}; }
COV_INLINE Columns load_columns(const int8_t* p) { return {_mm512_loadu_si512(p)}; }
COV_INLINE Four load_four(const uint8_t* p) {
  return {_mm512_broadcastd_epi32(_mm_loadu_si32(p))};
}
COV_INLINE Sums dot4(Four a, Columns w, Sums s) { return {_mm512_dpbusd_epi32(s.s, a.a, w.w)}; }
COV_INLINE V finish_sums(Sums s, const int32_t* offsets) {
  return {_mm512_cvtepi32_ps(_mm512_sub_epi32(s.s, _mm512_loadu_si512(offsets)))};
}

#elif COV_SIMD == 512

// Each 32-bit sum takes two of the four products of a column.
struct Sums {
  __m512i low, high;
};
struct Columns {
  __m512i low, high;
};
struct Four {
  __m512i a;
};
COV_INLINE Sums no_sums() { return {_mm512_setzero_si512(), _mm512_setzero_si512()}; }
COV_INLINE Columns load_columns(const int8_t* p) {
  return {_mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i*)p)),
          _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i*)(p + 32)))};
}
COV_INLINE Four load_four(const uint8_t* p) {
  int32_t x;
  __builtin_memcpy(&x, p, 4);
  return {_mm512_broadcastq_epi64(_mm_cvtepu8_epi16(_mm_cvtsi32_si128(x)))};
}
COV_INLINE Sums dot4(Four a, Columns w, Sums s) {
  return {_mm512_add_epi32(s.low, _mm512_madd_epi16(a.a, w.low)),
          _mm512_add_epi32(s.high, _mm512_madd_epi16(a.a, w.high))};
}
COV_INLINE V finish_sums(Sums s, const int32_t* offsets) {
  const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  const __m512i odd = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
  const __m512i sum = _mm512_add_epi32(_mm512_permutex2var_epi32(s.low, even, s.high),
                                       _mm512_permutex2var_epi32(s.low, odd, s.high));
  return {_mm512_cvtepi32_ps(_mm512_sub_epi32(sum, _mm512_loadu_si512(offsets)))};
}

#elif COV_SIMD == 256

struct Sums {
  __m256i s[4];
};
struct Columns {
  __m256i w[4];
};
struct Four {
  __m256i a;
};
COV_INLINE Sums no_sums() {
  const __m256i zero = _mm256_setzero_si256();
  return {{zero, zero, zero, zero}};
}
COV_INLINE Columns load_columns(const int8_t* p) {
  Columns c;
  for (int i = 0; i < 4; ++i)
    c.w[i] = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)(p + 16 * i)));
  return c;
}
COV_INLINE Four load_four(const uint8_t* p) {
  int32_t x;
  __builtin_memcpy(&x, p, 4);
  return {_mm256_broadcastq_epi64(_mm_cvtepu8_epi16(_mm_cvtsi32_si128(x)))};
}
COV_INLINE Sums dot4(Four a, Columns w, Sums s) {
  for (int i = 0; i < 4; ++i)
    s.s[i] = _mm256_add_epi32(s.s[i], _mm256_madd_epi16(a.a, w.w[i]));
  return s;
}
COV_INLINE __m256 finish_eight(__m256i low, __m256i high, const int32_t* offsets) {
  const __m256i pairs = _mm256_permute4x64_epi64(_mm256_hadd_epi32(low, high), 0xd8);
  return _mm256_cvtepi32_ps(
      _mm256_sub_epi32(pairs, _mm256_loadu_si256((const __m256i*)offsets)));
}
COV_INLINE V finish_sums(Sums s, const int32_t* offsets) {
  return {finish_eight(s.s[0], s.s[1], offsets), finish_eight(s.s[2], s.s[3], offsets + 8)};
}

#else

struct Sums {
  int32_t s[16];
};
struct Columns {
  const int8_t* w;
};
struct Four {
  int32_t a[4];
};
COV_INLINE Sums no_sums() { return {}; }
COV_INLINE Columns load_columns(const int8_t* p) { return {p}; }
COV_INLINE Four load_four(const uint8_t* p) { return {{p[0], p[1], p[2], p[3]}}; }
COV_INLINE Sums dot4(Four a, Columns c, Sums s) {
  for (int i = 0; i < 16; ++i)
    for (int j = 0; j < 4; ++j) s.s[i] += a.a[j] * c.w[4 * i + j];
  return s;
}
COV_INLINE V finish_sums(Sums s, const int32_t* offsets) {
  V v;
  for (int i = 0; i < 16; ++i) v.f[i] = (float)(s.s[i] - offsets[i]);
  return v;
}

#endif

// ---- one tile: Rows x (16 * Vectors) -----------------------------------------------------------

struct Int8Tile {
  int64_t fours;  // k / 4, rounded up
  const uint8_t* x;
  const float* x_scales;
  int64_t x_row;
  const int8_t* w;  // first column of the tile inside its panel
  int64_t panel_bytes;
  const float* w_scales;
  const int32_t* offsets;
  const float* residual;
  float* out;
  int64_t out_row;
  int64_t columns;
};

template <int Rows, int Vectors>
static __attribute__((noinline)) void int8_tile(const Int8Tile& t) {
  Sums sum[Rows][Vectors];
  for (int i = 0; i < Rows; ++i)
    for (int v = 0; v < Vectors; ++v) sum[i][v] = no_sums();
  const int8_t* w = t.w;
  const uint8_t* x = t.x;
  for (int64_t k = 0; k < t.fours; ++k, w += 4 * kWeightPanel, x += 4) {
    Columns column[Vectors];
    for (int v = 0; v < Vectors; ++v)
      column[v] = load_columns(w + (v / 2) * t.panel_bytes + (v % 2) * 64);
#pragma GCC unroll 12
    for (int i = 0; i < Rows; ++i) {
      const Four four = load_four(x + i * t.x_row);
#pragma GCC unroll 8
      for (int v = 0; v < Vectors; ++v) sum[i][v] = dot4(four, column[v], sum[i][v]);
    }
  }
  for (int i = 0; i < Rows; ++i) {
    const V row_scale = set(t.x_scales[i]);
    for (int v = 0; v < Vectors; ++v) {
      const int64_t left = t.columns - 16 * v;
      if (left <= 0) break;
      const int64_t n = left < 16 ? left : 16;
      // Scales and offsets are padded to whole panels.
      const V scale = mul(row_scale, load(t.w_scales + 16 * v));
      V value = mul(finish_sums(sum[i][v], t.offsets + 16 * v), scale);
      if (t.residual != nullptr)
        value = add(get(t.residual + i * t.out_row + 16 * v, n), value);
      put(t.out + i * t.out_row + 16 * v, value, n);
    }
  }
}

#if COV_SIMD == 512 && COV_VNNI
constexpr int kInt8Rows = 8, kInt8Vectors = 2;
#elif COV_SIMD == 512
constexpr int kInt8Rows = 4, kInt8Vectors = 2;
#elif COV_SIMD == 256
constexpr int kInt8Rows = 2, kInt8Vectors = 1;
#else
constexpr int kInt8Rows = 4, kInt8Vectors = 1;
#endif

template <int Vectors, int RowsMax>
COV_INLINE void int8_strip(Int8Tile t, int64_t rows) {
  while (rows > 0) {
    const int64_t done = rows < RowsMax ? rows : RowsMax;
    switch (done) {
#define COV_ROWS(n)                               \
  case n:                                         \
    int8_tile<(n <= RowsMax ? n : 1), Vectors>(t); \
    break;
      COV_ROWS(1) COV_ROWS(2) COV_ROWS(3) COV_ROWS(4) COV_ROWS(5) COV_ROWS(6)
      COV_ROWS(7) COV_ROWS(8) COV_ROWS(9) COV_ROWS(10) COV_ROWS(11) COV_ROWS(12)
#undef COV_ROWS
    }
    rows -= done;
    t.x += done * t.x_row;
    t.x_scales += done;
    t.out += done * t.out_row;
    if (t.residual != nullptr) t.residual += done * t.out_row;
  }
}

static void linear_int8(int64_t m, int64_t columns, int64_t k, const Int8Rows& x,
                        const Int8Panels& w, const float* residual, float* out, int64_t out_row) {
  Int8Tile t{(k + 3) / 4, x.bytes, x.scales, x.stride, w.bytes, w.panel_bytes, w.scales, w.offsets,
             residual,    out,     out_row,  columns};
  const auto at = [&](int64_t column) __attribute__((always_inline)) {
    t.w = w.bytes + column / kWeightPanel * w.panel_bytes + column % kWeightPanel * 4;
    t.w_scales = w.scales + column;
    t.offsets = w.offsets + column;
    t.residual = residual == nullptr ? nullptr : residual + column;
    t.out = out + column;
    t.columns = columns - column;
  };
  int64_t first = 0;
#if COV_SIMD == 512 && COV_VNNI
  if (m <= 2)
    for (; first + 128 <= columns; first += 128) {
      at(first);
      t.columns = 128;
      int8_strip<8, 2>(t, m);
    }
  if (m <= 4)
    for (; first + 64 <= columns; first += 64) {
      at(first);
      t.columns = 64;
      int8_strip<4, 4>(t, m);
    }
#endif
  for (; first < columns; first += 16 * kInt8Vectors) {
    at(first);
    if (t.columns > 16 * kInt8Vectors) t.columns = 16 * kInt8Vectors;
    int8_strip<kInt8Vectors, kInt8Rows>(t, m);
  }
}

// ---- activations to bytes ----------------------------------------------------------------------

static float quantise(const float* x, int64_t n, uint8_t* bytes) {
  V top = set(0.0f), poison = set(0.0f);
  for_lanes(n, [&](int64_t i, int64_t m) __attribute__((always_inline)) {
    const V v = get(x + i, m);
    top = largest(top, largest(v, sub(set(0.0f), v)));
    poison = fma(v, set(0.0f), poison);  // NaN when an element is not finite
  });
  const float max = max_lanes(top), bad = sum_lanes(poison);
  const int64_t padded = (n + 3) / 4 * 4;
  if (!(bad == 0.0f) || max < 1e-30f) {
    for (int64_t i = 0; i < padded; ++i) bytes[i] = 128;
    return bad;  // 0 or NaN
  }
  const V scale = set(127.0f / max), magic = set(12582912.0f);
  // 1.5 * 2^23 + q: q rounded half to even, in the low bits.
  for_lanes(n, [&](int64_t i, int64_t m) __attribute__((always_inline)) {
    const V rounded = add(mul(get(x + i, m), scale), magic);
#if COV_SIMD == 512
    const __m128i low = _mm512_cvtepi32_epi8(_mm512_castps_si512(rounded.f));
    const __m128i shifted = _mm_xor_si128(low, _mm_set1_epi8(-128));
    if (m == kLanes)
      _mm_storeu_si128((__m128i*)(bytes + i), shifted);
    else
      _mm_mask_storeu_epi8(bytes + i, tail_mask(m), shifted);
#else
    float lanes[16];
    store(lanes, rounded);
    for (int64_t j = 0; j < m; ++j) {
      uint32_t bits;
      __builtin_memcpy(&bits, &lanes[j], 4);
      bytes[i + j] = (uint8_t)(bits ^ 0x80u);
    }
#endif
  });
  for (int64_t i = n; i < padded; ++i) bytes[i] = 128;
  return max / 127.0f;
}

}  // namespace COV_ISA
}  // namespace covenant
