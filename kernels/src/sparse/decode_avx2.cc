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

int32_t count_high_avx2(const uint8_t* codes, int32_t bytes) {
  int32_t count = 0;
  int32_t at = 0;
  for (; at + 8 <= bytes; at += 8) {
    uint64_t word;
    __builtin_memcpy(&word, codes + at, sizeof word);
    count += __builtin_popcountll(word & 0xaaaaaaaaaaaaaaaa);
  }
  for (; at < bytes; ++at) count += __builtin_popcount(codes[at] & 0xaau);
  return count;
}

}  // namespace covenant::sparse

#endif
