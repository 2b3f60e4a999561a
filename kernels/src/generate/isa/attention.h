// Attention over pages of 16 positions: keys [dim][16], values [16][padded dim].
#pragma once

#include "engine/isa/simd.h"
#include "generate/kernels.h"

namespace covenant {
namespace COV_ISA {

// ---- elements of pages --------------------------------------------------------------------------

COV_INLINE V load_elements(const float* p) { return load(p); }
COV_INLINE V load_elements(const uint16_t* p) {
#if COV_SIMD == 512
  const __m512i x = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(x, 16))};
#elif COV_SIMD == 256
  const __m256i x = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)p));
  const __m256i y = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)(p + 8)));
  return {_mm256_castsi256_ps(_mm256_slli_epi32(x, 16)),
          _mm256_castsi256_ps(_mm256_slli_epi32(y, 16))};
#else
  V v;
  for (int i = 0; i < 16; ++i) {
    const uint32_t bits = (uint32_t)p[i] << 16;
    __builtin_memcpy(&v.f[i], &bits, 4);
  }
  return v;
#endif
}

// ---- scores ------------------------------------------------------------------------------------

template <int Rows, int Pages, typename T>
COV_INLINE void score_tile(int64_t dim, const float* q, int64_t q_row, const void* const* pages,
                           int64_t offset, float* scores, int64_t score_row) {
  V sum[Rows][Pages];
  const T* keys[Pages];
  for (int p = 0; p < Pages; ++p) keys[p] = (const T*)pages[p] + offset;
  for (int r = 0; r < Rows; ++r)
    for (int p = 0; p < Pages; ++p) sum[r][p] = set(0.0f);
  for (int64_t j = 0; j < dim; ++j) {
    V column[Pages];
    for (int p = 0; p < Pages; ++p) column[p] = load_elements(keys[p] + j * kPagePositions);
    for (int r = 0; r < Rows; ++r) {
      const V x = set(q[r * q_row + j]);
      for (int p = 0; p < Pages; ++p) sum[r][p] = fma(x, column[p], sum[r][p]);
    }
  }
  for (int r = 0; r < Rows; ++r)
    for (int p = 0; p < Pages; ++p)
      store(scores + r * score_row + p * kPagePositions, sum[r][p]);
}

template <int Rows, typename T>
COV_INLINE void score_rows(int64_t dim, const float* q, int64_t q_row, const void* const* pages,
                           int64_t offset, int64_t page_count, float* scores, int64_t score_row) {
  constexpr int kWide = Rows == 1 ? 8 : 4;
  int64_t p = 0;
  for (; p + kWide <= page_count; p += kWide)
    score_tile<Rows, kWide, T>(dim, q, q_row, pages + p, offset, scores + p * kPagePositions,
                            score_row);
  for (; p + 2 <= page_count; p += 2)
    score_tile<Rows, 2, T>(dim, q, q_row, pages + p, offset, scores + p * kPagePositions, score_row);
  if (p < page_count)
    score_tile<Rows, 1, T>(dim, q, q_row, pages + p, offset, scores + p * kPagePositions, score_row);
}

template <typename T>
static void scores(int64_t rows, int64_t dim, const float* q, int64_t q_row,
                   const void* const* pages, int64_t offset, int64_t page_count, float* out,
                   int64_t score_row) {
  int64_t r = 0;
  for (; r + 4 <= rows; r += 4)
    score_rows<4, T>(dim, q + r * q_row, q_row, pages, offset, page_count, out + r * score_row,
                  score_row);
  for (; r < rows; ++r)
    score_rows<1, T>(dim, q + r * q_row, q_row, pages, offset, page_count, out + r * score_row,
                  score_row);
}

// ---- softmax -----------------------------------------------------------------------------------

static void softmax_row(float* s, float scale, int64_t n, int64_t padded) {
  const V vscale = set(scale);
  V top = set(-__builtin_inff());
  for_lanes(n, [&](int64_t i, int64_t m) __attribute__((always_inline)) {
    const V x = mul(get(s + i, m), vscale);
    put(s + i, x, m);
    top = largest(top, m == kLanes ? x : keep(x, m, set(-__builtin_inff())));
  });
  const V vmax = set(max_lanes(top));
  V sum = set(0.0f);
  for_lanes(n, [&](int64_t i, int64_t m) __attribute__((always_inline)) {
    V e = vexp(sub(get(s + i, m), vmax));
    if (m != kLanes) e = keep(e, m, set(0.0f));
    put(s + i, e, m);
    sum = add(sum, e);
  });
  const V inverse = set(1.0f / sum_lanes(sum));
  for_lanes(n, [&](int64_t i, int64_t m)
                   __attribute__((always_inline)) { put(s + i, mul(get(s + i, m), inverse), m); });
  for (int64_t i = n; i < padded; ++i) s[i] = 0.0f;
}

// ---- weighted values ---------------------------------------------------------------------------

// One chain per output over the positions in order; several lanes at once hide its latency.
template <int Lanes, int Vectors, typename T>
COV_INLINE void weighted_tile(const AttentionLane* lanes, const void* const* pages, int64_t n,
                              int64_t first, int64_t dim, int64_t padded_dim) {
  V sum[Lanes][Vectors];
  for (int l = 0; l < Lanes; ++l)
    for (int v = 0; v < Vectors; ++v) sum[l][v] = set(0.0f);
  for (int64_t position = 0; position < n; position += kPagePositions) {
    const int64_t count = n - position < kPagePositions ? n - position : kPagePositions;
    const T* page = (const T*)pages[position / kPagePositions] + first;
    for (int64_t i = 0; i < count; ++i)
      for (int l = 0; l < Lanes; ++l) {
        const V x = set(lanes[l].scores[position + i]);
        const T* value = page + lanes[l].offset + i * padded_dim;
        for (int v = 0; v < Vectors; ++v) sum[l][v] = fma(x, load_elements(value + 16 * v), sum[l][v]);
      }
  }
  for (int l = 0; l < Lanes; ++l)
    for (int v = 0; v < Vectors; ++v) {
      const int64_t at = first + 16 * v;
      if (at < dim) put(lanes[l].out + at, sum[l][v], dim - at < 16 ? dim - at : 16);
    }
}

template <int Lanes, typename T>
COV_INLINE void weighted_lanes(const AttentionLane* lanes, const void* const* pages, int64_t n,
                               int64_t dim, int64_t padded_dim) {
  int64_t first = 0;
  for (; first + 32 < dim; first += 64)
    weighted_tile<Lanes, 4, T>(lanes, pages, n, first, dim, padded_dim);
  if (first < dim) weighted_tile<Lanes, 2, T>(lanes, pages, n, first, dim, padded_dim);
}

template <typename T>
static void weighted(const AttentionLane* lanes, int64_t lane_count, const void* const* pages,
                     int64_t n, int64_t dim, int64_t padded_dim) {
  int64_t l = 0;
  for (; l + 4 <= lane_count; l += 4) weighted_lanes<4, T>(lanes + l, pages, n, dim, padded_dim);
  for (; l < lane_count; ++l) weighted_lanes<1, T>(lanes + l, pages, n, dim, padded_dim);
}

static float largest_of(const float* x, int64_t n) {
  V top = set(x[0]);
  for_lanes(n, [&](int64_t i, int64_t m) __attribute__((always_inline)) {
    const V v = get(x + i, m);
    top = largest(top, m == kLanes ? v : keep(v, m, top));
  });
  return max_lanes(top);
}

}  // namespace COV_ISA
}  // namespace covenant
