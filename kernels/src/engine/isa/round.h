// Rounding of fp32 to bf16: to nearest even; subnormal numbers become zeros of their sign, NaN
// stays NaN, as VCVTNEPS2BF16 does it.
#pragma once

#include "engine/isa/simd.h"
#include "engine/isa/table.h"

namespace covenant {
namespace COV_ISA {

COV_INLINE Bf16 round_one(float x) {
  uint32_t u;
  __builtin_memcpy(&u, &x, 4);
  const uint32_t exponent = u & 0x7f800000u;
  if (exponent == 0) return (Bf16)(u >> 16 & 0x8000u);
  if (exponent == 0x7f800000u && (u & 0x7fffffu) != 0) return (Bf16)(u >> 16 | 0x40u);
  return (Bf16)((u + 0x7fffu + (u >> 16 & 1u)) >> 16);
}

#if COV_SIMD == 512
COV_INLINE __m256i round_lanes(__m512 x) {
#if defined(COV_BF16_NATIVE)
  return (__m256i)_mm512_cvtneps_pbh(x);
#else
  const __m512i u = _mm512_castps_si512(x);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
  __m512i r = _mm512_srli_epi32(
      _mm512_add_epi32(_mm512_add_epi32(u, _mm512_set1_epi32(0x7fff)), odd), 16);
  const __mmask16 tiny = _mm512_fpclass_ps_mask(x, 0x26);  // zeros and subnormal numbers
  const __mmask16 nan = _mm512_fpclass_ps_mask(x, 0x81);
  const __m512i high = _mm512_srli_epi32(u, 16);
  r = _mm512_mask_and_epi32(r, tiny, high, _mm512_set1_epi32(0x8000));
  r = _mm512_mask_or_epi32(r, nan, high, _mm512_set1_epi32(0x40));
  return _mm512_cvtepi32_epi16(r);
#endif
}
#elif COV_SIMD == 256
COV_INLINE __m256i round_half(__m256 x) {
  const __m256i u = _mm256_castps_si256(x), high = _mm256_srli_epi32(u, 16);
  const __m256i odd = _mm256_and_si256(high, _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_srli_epi32(
      _mm256_add_epi32(_mm256_add_epi32(u, _mm256_set1_epi32(0x7fff)), odd), 16);
  const __m256i tiny = _mm256_cmpeq_epi32(_mm256_and_si256(u, _mm256_set1_epi32(0x7f800000)),
                                          _mm256_setzero_si256());
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
  const __m256i zero = _mm256_and_si256(high, _mm256_set1_epi32(0x8000));
  const __m256i quiet = _mm256_or_si256(high, _mm256_set1_epi32(0x40));
  return _mm256_blendv_epi8(_mm256_blendv_epi8(rounded, zero, tiny), quiet, nan);
}
#endif

// Rows of results may be fp32 or bf16: put() rounds where it has to.
COV_INLINE void put(Bf16* p, V a, int64_t n) {
#if COV_SIMD == 512
  const __m256i r = round_lanes(a.f);
  if (n == kLanes)
    _mm256_storeu_si256((__m256i*)p, r);
  else
    _mm256_mask_storeu_epi16(p, tail_mask(n), r);
#elif COV_SIMD == 256
  const __m256i r =
      _mm256_permute4x64_epi64(_mm256_packus_epi32(round_half(a.f), round_half(a.g)), 0xd8);
  if (n == kLanes) {
    _mm256_storeu_si256((__m256i*)p, r);
    return;
  }
  Bf16 lanes[kLanes];
  _mm256_storeu_si256((__m256i*)lanes, r);
  for (int64_t i = 0; i < n; ++i) p[i] = lanes[i];
#else
  for (int64_t i = 0; i < n; ++i) p[i] = round_one(a.f[i]);
#endif
}

}  // namespace COV_ISA
}  // namespace covenant
