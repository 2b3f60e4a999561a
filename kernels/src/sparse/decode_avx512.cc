// No inline function from a header is used, because the linker could give its code to callers
// without this instruction set.
#include "sparse/decode.h"

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

}  // namespace covenant::sparse

#endif
