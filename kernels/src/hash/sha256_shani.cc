// SHA-256 with the SHA instructions of x86: two rounds an instruction, the message schedule in four
// registers.
#include "hash/sha256.h"

#if defined(__x86_64__)

#include <cpuid.h>
#include <immintrin.h>

namespace covenant::hash {

bool sha256_has_instructions() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  return (b >> 29 & 1) != 0 && __builtin_cpu_supports("sse4.1") && __builtin_cpu_supports("ssse3");
}

namespace {

// Folds blocks of kStreams messages into their states, side by side: an instruction of one stream
// runs while that of another is not done yet.
template <int kStreams>
__attribute__((always_inline)) inline void fold(uint32_t* const (&states)[kStreams],
                                                const uint8_t* const (&data)[kStreams],
                                                size_t blocks) {
  const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0bLL, 0x0405060700010203LL);
  __m128i abef[kStreams], cdgh[kStreams];
  for (int s = 0; s < kStreams; ++s) {
    // The instructions want the state as (a, b, e, f) and (c, d, g, h), highest lane first.
    const __m128i* const state = reinterpret_cast<const __m128i*>(states[s]);
    const __m128i abcd = _mm_shuffle_epi32(_mm_loadu_si128(state), 0xb1);
    const __m128i efgh = _mm_shuffle_epi32(_mm_loadu_si128(state + 1), 0x1b);
    abef[s] = _mm_alignr_epi8(abcd, efgh, 8);
    cdgh[s] = _mm_blend_epi16(efgh, abcd, 0xf0);
  }
  for (size_t block = 0; block < blocks; ++block) {
    __m128i abef_before[kStreams], cdgh_before[kStreams], w[kStreams][4];
    for (int s = 0; s < kStreams; ++s) {
      abef_before[s] = abef[s];
      cdgh_before[s] = cdgh[s];
      const __m128i* const words = reinterpret_cast<const __m128i*>(data[s] + 64 * block);
      for (int i = 0; i < 4; ++i) w[s][i] = _mm_shuffle_epi8(_mm_loadu_si128(words + i), swap);
    }
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) {
      const __m128i constants =
          _mm_loadu_si128(reinterpret_cast<const __m128i*>(kRoundConstants) + i);
#pragma GCC unroll 2
      for (int s = 0; s < kStreams; ++s) {
        const __m128i sum = _mm_add_epi32(w[s][i & 3], constants);
        cdgh[s] = _mm_sha256rnds2_epu32(cdgh[s], abef[s], sum);
        abef[s] = _mm_sha256rnds2_epu32(abef[s], cdgh[s], _mm_shuffle_epi32(sum, 0x0e));
        if (i < 12) {
          const __m128i middle = _mm_alignr_epi8(w[s][(i + 3) & 3], w[s][(i + 2) & 3], 4);
          const __m128i partial =
              _mm_add_epi32(_mm_sha256msg1_epu32(w[s][i & 3], w[s][(i + 1) & 3]), middle);
          w[s][i & 3] = _mm_sha256msg2_epu32(partial, w[s][(i + 3) & 3]);
        }
      }
    }
    for (int s = 0; s < kStreams; ++s) {
      abef[s] = _mm_add_epi32(abef[s], abef_before[s]);
      cdgh[s] = _mm_add_epi32(cdgh[s], cdgh_before[s]);
    }
  }
  for (int s = 0; s < kStreams; ++s) {
    const __m128i feba = _mm_shuffle_epi32(abef[s], 0x1b);
    const __m128i dchg = _mm_shuffle_epi32(cdgh[s], 0xb1);
    __m128i* const state = reinterpret_cast<__m128i*>(states[s]);
    _mm_storeu_si128(state, _mm_blend_epi16(feba, dchg, 0xf0));
    _mm_storeu_si128(state + 1, _mm_alignr_epi8(dchg, feba, 8));
  }
}

}  // namespace

void sha256_blocks_shani(uint32_t state[8], const uint8_t* data, size_t blocks) {
  uint32_t* const states[1] = {state};
  const uint8_t* const all[1] = {data};
  fold<1>(states, all, blocks);
}

void sha256_pair_shani(uint32_t first[8], const uint8_t* first_data, uint32_t second[8],
                       const uint8_t* second_data, size_t blocks) {
  uint32_t* const states[2] = {first, second};
  const uint8_t* const all[2] = {first_data, second_data};
  fold<2>(states, all, blocks);
}

}  // namespace covenant::hash

#endif
