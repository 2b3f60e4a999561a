// No inline function from a header is used, because the linker could give its code to callers
// without this instruction set.
#include "sparse/sums.h"

#if defined(__x86_64__)

#include <immintrin.h>

namespace covenant::sparse {

void apply_avx2(float* theta, SumAndWeight* sums, int32_t n, float rate, float divisor) {
  const __m256 zero = _mm256_setzero_ps();
  const __m256 rates = _mm256_set1_ps(rate);
  const __m256 common = _mm256_set1_ps(divisor);
  int32_t i = 0;
  for (; i + 8 <= n; i += 8) {
    float* const at = reinterpret_cast<float*>(sums + i);
    // s0 w0 s1 w1 | s2 w2 s3 w3 and s4 ..: even and odd places, then the halves in order.
    const __m256 first = _mm256_loadu_ps(at);
    const __m256 second = _mm256_loadu_ps(at + 8);
    const __m256 low = _mm256_permute2f128_ps(first, second, 0x20);
    const __m256 high = _mm256_permute2f128_ps(first, second, 0x31);
    const __m256 sum = _mm256_shuffle_ps(low, high, 0x88);
    const __m256 weight = _mm256_shuffle_ps(low, high, 0xdd);
    const __m256 sent = _mm256_cmp_ps(weight, zero, _CMP_NEQ_OQ);
    if (_mm256_testz_ps(sent, sent)) continue;
    const __m256 mean = _mm256_div_ps(sum, divisor != 0 ? common : weight);
    const __m256 own = _mm256_loadu_ps(theta + i);
    const __m256 moved = _mm256_sub_ps(own, _mm256_mul_ps(rates, mean));
    _mm256_storeu_ps(theta + i, _mm256_blendv_ps(own, moved, sent));
    _mm256_storeu_ps(at, zero);
    _mm256_storeu_ps(at + 8, zero);
  }
  for (; i < n; ++i) {
    if (sums[i].weight == 0) continue;
    const float step = rate * (sums[i].sum / (divisor != 0 ? divisor : sums[i].weight));
    theta[i] = theta[i] - step;
    sums[i] = {0, 0};
  }
}

void apply_tally_avx2(float* theta, Tally& tally, float rate, const float* divisors) {
  const __m256 rates = _mm256_set1_ps(rate);
  const __m256 few = _mm256_loadu_ps(divisors);
  for (int32_t i = 0; i < 4096; i += 8) {
    uint8_t* const counts = tally.counts + i;
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(counts));
    const __m256i count = _mm256_cvtepu8_epi32(bytes);
    const __m256 unsent =
        _mm256_castsi256_ps(_mm256_cmpeq_epi32(count, _mm256_setzero_si256()));
    // Eight divisors fit a register; more than seven that sent the same value are rare.
    const __m128i beyond = _mm_and_si128(bytes, _mm_set1_epi8(~7));
    const __m256 divisor = _mm_testz_si128(beyond, beyond) != 0
                               ? _mm256_permutevar8x32_ps(few, count)
                               : _mm256_i32gather_ps(divisors, count, sizeof(float));
    const __m256 mean = _mm256_div_ps(_mm256_load_ps(tally.sums + i), divisor);
    const __m256 own = _mm256_loadu_ps(theta + i);
    const __m256 moved = _mm256_sub_ps(own, _mm256_mul_ps(rates, mean));
    _mm256_storeu_ps(theta + i, _mm256_blendv_ps(moved, own, unsent));
    _mm256_store_ps(tally.sums + i, _mm256_setzero_ps());
    _mm_storel_epi64(reinterpret_cast<__m128i*>(counts), _mm_setzero_si128());
  }
}

}  // namespace covenant::sparse

#endif
