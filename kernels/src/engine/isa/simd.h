// Sixteen fp32 lanes as one value `V`, and the register `R` of the matrix kernel, for the
// instruction set of the including file (COV_ISA names its namespace; COV_SIMD is 512, 256 or 0).
// Nothing here has external linkage and nothing from the standard library is used, so that no
// function compiled for a newer machine can be linked into code that runs on an older one.
#pragma once

#include <stdint.h>
#if COV_SIMD
#include <immintrin.h>
#endif

#define COV_INLINE static inline __attribute__((always_inline))

namespace covenant {
namespace COV_ISA {

constexpr int64_t kLanes = 16;

// A float, or two bf16 values that only a dot product looks into.
typedef float __attribute__((may_alias)) Word;

#if COV_SIMD == 512

struct V {
  __m512 f;
};
COV_INLINE __mmask16 tail_mask(int64_t n) { return (__mmask16)((1u << n) - 1u); }
COV_INLINE V load(const float* p) { return {_mm512_loadu_ps(p)}; }
COV_INLINE V load_tail(const float* p, int64_t n) {
  return {_mm512_maskz_loadu_ps(tail_mask(n), p)};
}
COV_INLINE void store(float* p, V a) { _mm512_storeu_ps(p, a.f); }
COV_INLINE void store_tail(float* p, V a, int64_t n) {
  _mm512_mask_storeu_ps(p, tail_mask(n), a.f);
}
COV_INLINE V set(float x) { return {_mm512_set1_ps(x)}; }
COV_INLINE V add(V a, V b) { return {_mm512_add_ps(a.f, b.f)}; }
COV_INLINE V sub(V a, V b) { return {_mm512_sub_ps(a.f, b.f)}; }
COV_INLINE V mul(V a, V b) { return {_mm512_mul_ps(a.f, b.f)}; }
COV_INLINE V div(V a, V b) { return {_mm512_div_ps(a.f, b.f)}; }
COV_INLINE V root(V a) { return {_mm512_sqrt_ps(a.f)}; }
COV_INLINE V fma(V a, V b, V c) { return {_mm512_fmadd_ps(a.f, b.f, c.f)}; }
COV_INLINE V largest(V a, V b) { return {_mm512_max_ps(a.f, b.f)}; }
COV_INLINE V smallest(V a, V b) { return {_mm512_min_ps(a.f, b.f)}; }
// a * 2^k where k is the integer in the low bits of `magic`.
COV_INLINE V scale_exponent(V a, V magic) {
  const __m512i k = _mm512_slli_epi32(_mm512_castps_si512(magic.f), 23);
  return {_mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(a.f), k))};
}
COV_INLINE V zero_below(V a, V x, V limit) {
  return {_mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x.f, limit.f, _CMP_NLT_UQ), a.f)};
}
// First n lanes of a, the others replaced by `fill`.
COV_INLINE V keep(V a, int64_t n, V fill) {
  return {_mm512_mask_mov_ps(fill.f, tail_mask(n), a.f)};
}
COV_INLINE __m256 fold_halves(V a, bool maximum) {
  const __m256 low = _mm512_castps512_ps256(a.f);
  const __m256 high = _mm512_extractf32x8_ps(a.f, 1);
  return maximum ? _mm256_max_ps(low, high) : _mm256_add_ps(low, high);
}

#elif COV_SIMD == 256

struct V {
  __m256 f, g;
};
COV_INLINE __m256i tail_mask(int64_t n) {
  const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), lanes);
}
COV_INLINE V load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
COV_INLINE V load_tail(const float* p, int64_t n) {
  return {_mm256_maskload_ps(p, tail_mask(n)), _mm256_maskload_ps(p + 8, tail_mask(n - 8))};
}
COV_INLINE void store(float* p, V a) {
  _mm256_storeu_ps(p, a.f);
  _mm256_storeu_ps(p + 8, a.g);
}
COV_INLINE void store_tail(float* p, V a, int64_t n) {
  _mm256_maskstore_ps(p, tail_mask(n), a.f);
  _mm256_maskstore_ps(p + 8, tail_mask(n - 8), a.g);
}
COV_INLINE V set(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
COV_INLINE V add(V a, V b) { return {_mm256_add_ps(a.f, b.f), _mm256_add_ps(a.g, b.g)}; }
COV_INLINE V sub(V a, V b) { return {_mm256_sub_ps(a.f, b.f), _mm256_sub_ps(a.g, b.g)}; }
COV_INLINE V mul(V a, V b) { return {_mm256_mul_ps(a.f, b.f), _mm256_mul_ps(a.g, b.g)}; }
COV_INLINE V div(V a, V b) { return {_mm256_div_ps(a.f, b.f), _mm256_div_ps(a.g, b.g)}; }
COV_INLINE V root(V a) { return {_mm256_sqrt_ps(a.f), _mm256_sqrt_ps(a.g)}; }
COV_INLINE V fma(V a, V b, V c) {
  return {_mm256_fmadd_ps(a.f, b.f, c.f), _mm256_fmadd_ps(a.g, b.g, c.g)};
}
COV_INLINE V largest(V a, V b) { return {_mm256_max_ps(a.f, b.f), _mm256_max_ps(a.g, b.g)}; }
COV_INLINE V smallest(V a, V b) { return {_mm256_min_ps(a.f, b.f), _mm256_min_ps(a.g, b.g)}; }
COV_INLINE __m256 scale_half(__m256 a, __m256 magic) {
  const __m256i k = _mm256_slli_epi32(_mm256_castps_si256(magic), 23);
  return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a), k));
}
COV_INLINE V scale_exponent(V a, V magic) {
  return {scale_half(a.f, magic.f), scale_half(a.g, magic.g)};
}
COV_INLINE V zero_below(V a, V x, V limit) {
  return {_mm256_and_ps(a.f, _mm256_cmp_ps(x.f, limit.f, _CMP_NLT_UQ)),
          _mm256_and_ps(a.g, _mm256_cmp_ps(x.g, limit.g, _CMP_NLT_UQ))};
}
COV_INLINE V keep(V a, int64_t n, V fill) {
  return {_mm256_blendv_ps(fill.f, a.f, _mm256_castsi256_ps(tail_mask(n))),
          _mm256_blendv_ps(fill.g, a.g, _mm256_castsi256_ps(tail_mask(n - 8)))};
}
COV_INLINE __m256 fold_halves(V a, bool maximum) {
  return maximum ? _mm256_max_ps(a.f, a.g) : _mm256_add_ps(a.f, a.g);
}

#else

struct V {
  float f[16];
};
COV_INLINE V load_tail(const float* p, int64_t n) {
  V a;
  for (int i = 0; i < 16; ++i) a.f[i] = i < n ? p[i] : 0.0f;
  return a;
}
COV_INLINE V load(const float* p) { return load_tail(p, 16); }
COV_INLINE void store_tail(float* p, V a, int64_t n) {
  for (int i = 0; i < n; ++i) p[i] = a.f[i];
}
COV_INLINE void store(float* p, V a) { store_tail(p, a, 16); }
COV_INLINE V set(float x) {
  V a;
  for (int i = 0; i < 16; ++i) a.f[i] = x;
  return a;
}
#define COV_LANES(name, expression)                     \
  COV_INLINE V name(V a, V b) {                         \
    V c;                                                \
    for (int i = 0; i < 16; ++i) c.f[i] = (expression); \
    return c;                                           \
  }
COV_LANES(add, a.f[i] + b.f[i])
COV_LANES(sub, a.f[i] - b.f[i])
COV_LANES(mul, a.f[i] * b.f[i])
COV_LANES(div, a.f[i] / b.f[i])
COV_LANES(largest, a.f[i] > b.f[i] ? a.f[i] : b.f[i])
COV_LANES(smallest, a.f[i] < b.f[i] ? a.f[i] : b.f[i])
#undef COV_LANES
COV_INLINE V root(V a) {
  for (int i = 0; i < 16; ++i) a.f[i] = __builtin_sqrtf(a.f[i]);
  return a;
}
COV_INLINE V fma(V a, V b, V c) {
  for (int i = 0; i < 16; ++i) c.f[i] = __builtin_fmaf(a.f[i], b.f[i], c.f[i]);
  return c;
}
COV_INLINE V scale_exponent(V a, V magic) {
  for (int i = 0; i < 16; ++i) {
    uint32_t bits, k;
    __builtin_memcpy(&bits, &a.f[i], 4);
    __builtin_memcpy(&k, &magic.f[i], 4);
    bits += k << 23;
    __builtin_memcpy(&a.f[i], &bits, 4);
  }
  return a;
}
COV_INLINE V zero_below(V a, V x, V limit) {
  for (int i = 0; i < 16; ++i)
    if (x.f[i] < limit.f[i]) a.f[i] = 0.0f;
  return a;
}
COV_INLINE V keep(V a, int64_t n, V fill) {
  for (int64_t i = n; i < 16; ++i) a.f[i] = fill.f[i];
  return a;
}

#endif

#if COV_SIMD
COV_INLINE float fold(V a, bool maximum) {
  const __m256 v8 = fold_halves(a, maximum);
  const __m128 low = _mm256_castps256_ps128(v8), high = _mm256_extractf128_ps(v8, 1);
  const __m128 v4 = maximum ? _mm_max_ps(low, high) : _mm_add_ps(low, high);
  const __m128 swap = _mm_movehl_ps(v4, v4);
  const __m128 v2 = maximum ? _mm_max_ps(v4, swap) : _mm_add_ps(v4, swap);
  const __m128 odd = _mm_movehdup_ps(v2);
  return _mm_cvtss_f32(maximum ? _mm_max_ss(v2, odd) : _mm_add_ss(v2, odd));
}
#else
COV_INLINE float fold(V a, bool maximum) {
  for (int half = 8; half > 0; half /= 2)
    for (int i = 0; i < half; ++i)
      a.f[i] = !maximum ? a.f[i] + a.f[i + half] : a.f[i] > a.f[i + half] ? a.f[i] : a.f[i + half];
  return a.f[0];
}
#endif
COV_INLINE float sum_lanes(V a) { return fold(a, false); }
COV_INLINE float max_lanes(V a) { return fold(a, true); }

// exp by Cody-Waite reduction and a degree-7 polynomial (Cephes coefficients): below 2 ulp on
// [-86, 88]; 0 below -86 (every result stays a normal number); exp(88) above 88.
COV_INLINE V vexp(V x) {
  const V magic = set(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer in the low bits
  const V top = smallest(set(88.0f), x);  // in this order NaN stays NaN
  const V t = fma(top, set(1.44269504088896341f), magic);
  const V n = sub(t, magic);
  V r = fma(n, set(-0.693359375f), top);
  r = fma(n, set(2.12194440e-4f), r);
  V p = set(1.9875691500e-4f);
  p = fma(p, r, set(1.3981999507e-3f));
  p = fma(p, r, set(8.3334519073e-3f));
  p = fma(p, r, set(4.1665795894e-2f));
  p = fma(p, r, set(1.6666665459e-1f));
  p = fma(p, r, set(5.0000001201e-1f));
  p = add(fma(p, mul(r, r), r), set(1.0f));
  return zero_below(scale_exponent(p, t), x, set(-86.0f));
}

// Calls body(offset, lanes) over [0, n): full vectors first, then one tail. `full` is a
// compile-time constant in each call, so full vectors use plain loads and stores.
template <typename Body>
COV_INLINE void for_lanes(int64_t n, const Body& body) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) body(i, kLanes);
  if (i < n) body(i, n - i);
}
COV_INLINE V get(const float* p, int64_t n) { return n == kLanes ? load(p) : load_tail(p, n); }
COV_INLINE void put(float* p, V a, int64_t n) {
  if (n == kLanes)
    store(p, a);
  else
    store_tail(p, a, n);
}

}  // namespace COV_ISA
}  // namespace covenant
