// No inline function from a header is used, because the linker could give its code to callers
// without this instruction set.
#include "sparse/decode.h"

#if defined(__x86_64__)

#include <immintrin.h>

namespace covenant::sparse {

bool decode64_avx2(const uint8_t* fields, uint16_t indices[64]) {
  uint64_t upper[2];
  __builtin_memcpy(upper, fields + 48, sizeof upper);
  if (__builtin_popcountll(upper[0]) + __builtin_popcountll(upper[1]) != 64) return false;
  int32_t j = 0;
  for (int32_t word = 0; word < 2; ++word) {
    for (uint64_t rest = upper[word]; rest != 0; rest &= rest - 1, ++j) {
      const auto bit = static_cast<int32_t>(_tzcnt_u64(rest)) + 64 * word;
      indices[j] = static_cast<uint16_t>((bit - j) << 6);
    }
  }
  // Eight times six bits spread to bytes. The last eight bytes read reach into the bitmap.
  for (int32_t group = 0; group < 8; ++group) {
    uint64_t packed;
    __builtin_memcpy(&packed, fields + 6 * group, sizeof packed);
    const __m128i low = _mm_cvtepu8_epi16(_mm_cvtsi64_si128(
        static_cast<long long>(_pdep_u64(packed, 0x3f3f3f3f3f3f3f3f))));
    __m128i* const at = reinterpret_cast<__m128i*>(indices + 8 * group);
    _mm_storeu_si128(at, _mm_or_si128(_mm_loadu_si128(at), low));
  }
  // Ascending: each is above the one before it. Indices are below 2^13, so signed words will do.
  __m256i descending = _mm256_setzero_si256();
  for (int32_t at = 0; at < 48; at += 16) {
    const __m256i here =
        _mm256_loadu_si256(reinterpret_cast<const __m256i*>(indices + at));
    const __m256i next =
        _mm256_loadu_si256(reinterpret_cast<const __m256i*>(indices + at + 1));
    descending = _mm256_or_si256(descending, _mm256_cmpgt_epi16(here, next));
    descending = _mm256_or_si256(descending, _mm256_cmpeq_epi16(here, next));
  }
  const __m256i here = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(indices + 47));
  const __m256i next = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(indices + 48));
  descending = _mm256_or_si256(descending, _mm256_cmpgt_epi16(here, next));
  descending = _mm256_or_si256(descending, _mm256_cmpeq_epi16(here, next));
  return _mm256_testz_si256(descending, descending) != 0 && indices[63] < 4096;
}

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

}  // namespace covenant::sparse

#endif
