// No inline function from a header is used, because the linker could give its code to callers
// without this instruction set.
#include "sparse/sums.h"

#if defined(__x86_64__)

#if !defined(__clang__)
// GCC 12 takes the undefined source operand of some intrinsics for a mistake of the caller.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

namespace covenant::sparse {

void apply_avx512(float* theta, SumAndWeight* sums, int32_t n, float rate, float divisor) {
  const __m512i evens =
      _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  const __m512i odds =
      _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
  const __m512 rates = _mm512_set1_ps(rate);
  const __m512 common = _mm512_set1_ps(divisor);
  for (int32_t i = 0; i < n; i += 16) {
    const uint32_t lanes = n - i >= 16 ? 0xffffffff : (1u << (2 * (n - i))) - 1;
    const auto low = static_cast<__mmask16>(lanes);
    const auto high = static_cast<__mmask16>(lanes >> 16);
    float* const at = reinterpret_cast<float*>(sums + i);
    const __m512 first = _mm512_maskz_loadu_ps(low, at);
    const __m512 second = _mm512_maskz_loadu_ps(high, at + 16);
    const __m512 weight = _mm512_permutex2var_ps(first, odds, second);
    const __mmask16 sent = _mm512_cmp_ps_mask(weight, _mm512_setzero_ps(), _CMP_NEQ_OQ);
    const __m512 sum = _mm512_permutex2var_ps(first, evens, second);
    const __m512 mean = _mm512_maskz_div_ps(sent, sum, divisor != 0 ? common : weight);
    const __m512 own = _mm512_maskz_loadu_ps(sent, theta + i);
    _mm512_mask_storeu_ps(theta + i, sent, _mm512_sub_ps(own, _mm512_mul_ps(rates, mean)));
    _mm512_mask_storeu_ps(at, low, _mm512_setzero_ps());
    _mm512_mask_storeu_ps(at + 16, high, _mm512_setzero_ps());
  }
}

void apply_tally_avx512(float* theta, Tally& tally, float rate, const float* divisors) {
  const __m512 rates = _mm512_set1_ps(rate);
  const __m512 few = _mm512_loadu_ps(divisors);
  const __m512 many = _mm512_loadu_ps(divisors + 16);
  for (int32_t i = 0; i < 4096; i += 16) {
    __m128i* const counts = reinterpret_cast<__m128i*>(tally.counts + i);
    const __m128i bytes = _mm_load_si128(counts);
    // Some sixteen values in a row are sent by nobody: guessing which costs more than the work.
    const __mmask16 sent = _mm_test_epi8_mask(bytes, bytes);
    const __m512 divisor = _mm512_permutex2var_ps(few, _mm512_cvtepu8_epi32(bytes), many);
    const __m512 mean = _mm512_div_ps(_mm512_load_ps(tally.sums + i), divisor);
    const __m512 own = _mm512_loadu_ps(theta + i);
    _mm512_storeu_ps(theta + i, _mm512_mask_sub_ps(own, sent, own, _mm512_mul_ps(rates, mean)));
    _mm512_store_ps(tally.sums + i, _mm512_setzero_ps());
    _mm_store_si128(counts, _mm_setzero_si128());
  }
}

}  // namespace covenant::sparse

#endif
