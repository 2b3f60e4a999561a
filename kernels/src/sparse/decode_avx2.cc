// No inline function from a header is used, because the linker could give its code to callers
// without this instruction set.
#include "sparse/decode.h"

#if defined(__x86_64__)

#include <immintrin.h>

namespace covenant::sparse {

namespace {

// For each byte the places of its set bits, ascending, a byte each.
struct Places {
  uint64_t of[256];
};
constexpr Places find_places() {
  Places out{};
  for (uint64_t byte = 0; byte < 256; ++byte) {
    int found = 0;
    for (uint64_t bit = 0; bit < 8; ++bit) {
      if ((byte >> bit & 1) != 0) out.of[byte] |= bit << (8 * found++);
    }
  }
  return out;
}
constexpr Places kPlaces = find_places();

}  // namespace

bool decode64_avx2(const uint8_t* fields, uint16_t indices[64]) {
  const uint8_t* const bitmap = fields + 48;
  uint64_t upper[2];
  __builtin_memcpy(upper, bitmap, sizeof upper);
  if (__builtin_popcountll(upper[0]) + __builtin_popcountll(upper[1]) != 64) return false;
  // Eight places are written whatever a byte holds, and the next byte's go over those too many.
  uint8_t places[64 + 8];
  int32_t count = 0;
  for (uint32_t byte = 0; byte < 16; ++byte) {
    const uint64_t found = kPlaces.of[bitmap[byte]] + 0x0808080808080808 * byte;
    __builtin_memcpy(places + count, &found, sizeof found);
    count += __builtin_popcount(bitmap[byte]);
  }
  // Place less rank is the row. Eight times six low bits spread to bytes; the last eight bytes read
  // reach into the bitmap.
  __m128i ranks = _mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, 0, 0, 0, 0, 0, 0, 0, 0);
  for (int32_t group = 0; group < 8; ++group) {
    uint64_t packed;
    __builtin_memcpy(&packed, fields + 6 * group, sizeof packed);
    const __m128i low = _mm_cvtepu8_epi16(_mm_cvtsi64_si128(
        static_cast<long long>(_pdep_u64(packed, 0x3f3f3f3f3f3f3f3f))));
    const __m128i place =
        _mm_loadl_epi64(reinterpret_cast<const __m128i*>(places + 8 * group));
    const __m128i row = _mm_cvtepu8_epi16(_mm_sub_epi8(place, ranks));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(indices + 8 * group),
                     _mm_or_si128(_mm_slli_epi16(row, 6), low));
    ranks = _mm_add_epi8(ranks, _mm_set1_epi8(8));
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
