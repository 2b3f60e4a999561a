// Top-k by thresholds: values at or above the hint are listed while they are made; the exact
// threshold is found among them by bisection on their bits, counting by mask.
//
// No inline function with external linkage is used, because the linker could give its code to callers
// without this instruction set.
#include "sparse/gather.h"

#if defined(__x86_64__)

#if !defined(__clang__)
// GCC 12 takes the undefined source operand of some intrinsics for a mistake of the caller.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#include "sparse/threshold.h"

namespace covenant::sparse {
namespace {

constexpr int32_t kChunk = 4096;
constexpr int32_t kLines = 2;              // of each stream to fetch while 64 values are listed
constexpr uint32_t kHintMargin = 1 << 21;  // a quarter of an octave

// Bit i of the masks says whether the key of e[i] is at least floor.
void mark_at_least(const float* e, int32_t n, uint32_t floor, uint16_t* masks) {
  const __m512i sign = _mm512_set1_epi32(0x7fffffff);
  const __m512i bound = _mm512_set1_epi32(static_cast<int32_t>(floor));
  for (int32_t i = 0; i < n; i += 16) {
    const __mmask16 lanes =
        n - i >= 16 ? __mmask16(0xffff) : static_cast<__mmask16>((1u << (n - i)) - 1);
    const __m512i key =
        _mm512_and_si512(_mm512_castps_si512(_mm512_maskz_loadu_ps(lanes, e + i)), sign);
    masks[i / 16] = _mm512_mask_cmpge_epu32_mask(lanes, key, bound);
  }
}

// The marked indices, ascending, and their keys; returns their number.
int32_t list_marked(const float* e, int32_t n, const uint16_t* masks, uint32_t* list,
                    uint32_t* keys, const float* base, const float* current) {
  int32_t count = 0;
  for (int32_t word = 0; word < (n + 63) / 64; ++word) {
    uint64_t mask;
    __builtin_memcpy(&mask, masks + 4 * word, sizeof mask);
    // The processor follows the streams by itself, but not while nothing reads them.
    for (int32_t line = 0; line < kLines; ++line) {
      const int32_t next = n + 16 * (kLines * word + line);
      _mm_prefetch(reinterpret_cast<const char*>(base + next), _MM_HINT_T0);
      _mm_prefetch(reinterpret_cast<const char*>(current + next), _MM_HINT_T0);
      _mm_prefetch(reinterpret_cast<const char*>(e + next), _MM_HINT_T0);
    }
    const int32_t here = static_cast<int32_t>(__builtin_popcountll(mask));
    // Few words mark more than four, and taking four always costs less than guessing how many.
    for (int32_t c = 0; c < 4; ++c, mask &= mask - 1)
      list[count + c] = static_cast<uint32_t>(64 * word) + static_cast<uint32_t>(_tzcnt_u64(mask));
    for (int32_t c = 4; c < here; ++c, mask &= mask - 1)
      list[count + c] = static_cast<uint32_t>(64 * word) + static_cast<uint32_t>(_tzcnt_u64(mask));
    count += here;
  }
  for (int32_t c = 0; c < count; ++c) {
    uint32_t bits;
    __builtin_memcpy(&bits, e + list[c], sizeof bits);
    keys[c] = bits & 0x7fffffff;
  }
  return count;
}

// Number of keys[0 .. vectors * 16) at or above floor.
int32_t count_at_least(const uint32_t* keys, int32_t vectors, uint32_t floor) {
  const __m512i bound = _mm512_set1_epi32(static_cast<int32_t>(floor));
  int32_t count = 0;
  for (int32_t v = 0; v < vectors; ++v) {
    count += __builtin_popcount(
        _mm512_cmpge_epu32_mask(_mm512_loadu_si512(keys + 16 * v), bound));
  }
  return count;
}

// Of the candidates those with a key above threshold, and the first `ties` of those equal to it.
void emit(const uint32_t* list, const uint32_t* keys, int32_t vectors, uint32_t threshold,
          uint32_t ties, uint16_t* indices) {
  const __m512i bound = _mm512_set1_epi32(static_cast<int32_t>(threshold));
  for (int32_t v = 0; v < vectors; ++v) {
    const __m512i key = _mm512_loadu_si512(keys + 16 * v);
    const uint32_t above = _mm512_cmpgt_epu32_mask(key, bound);
    const uint32_t equal = _mm512_cmpeq_epu32_mask(key, bound);
    const uint32_t here = static_cast<uint32_t>(__builtin_popcount(equal));
    const uint32_t take = here < ties ? here : ties;
    ties -= take;
    const auto mask = static_cast<__mmask16>(above | _pdep_u32((1u << take) - 1, equal));
    const __m512i chosen =
        _mm512_maskz_compress_epi32(mask, _mm512_loadu_si512(list + 16 * v));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(indices), _mm512_cvtepi32_epi16(chosen));
    indices += __builtin_popcount(mask);
  }
}

}  // namespace

uint32_t gather_avx512(const float* base, const float* current, float beta, float* e, int32_t n,
                       int32_t kept, uint32_t* hint, uint16_t* indices) {
  alignas(64) uint16_t masks[kChunk / 16] = {};
  const __m512 decay = _mm512_set1_ps(beta);
  const __m512i sign = _mm512_set1_epi32(0x7fffffff);
  const __m512i bound = _mm512_set1_epi32(static_cast<int32_t>(*hint));
  int32_t i = 0;
  for (; i + 16 <= n; i += 16) {
    const __m512 step = _mm512_sub_ps(_mm512_loadu_ps(base + i), _mm512_loadu_ps(current + i));
    const __m512 a = _mm512_fmadd_ps(decay, _mm512_loadu_ps(e + i), step);
    _mm512_storeu_ps(e + i, a);
    const __m512i key = _mm512_and_si512(_mm512_castps_si512(a), sign);
    masks[i / 16] = _mm512_cmpge_epu32_mask(key, bound);
  }
  if (i < n) {
    const auto lanes = static_cast<__mmask16>((1u << (n - i)) - 1);
    const __m512 step = _mm512_sub_ps(_mm512_maskz_loadu_ps(lanes, base + i),
                                      _mm512_maskz_loadu_ps(lanes, current + i));
    const __m512 a = _mm512_fmadd_ps(decay, _mm512_maskz_loadu_ps(lanes, e + i), step);
    _mm512_mask_storeu_ps(e + i, lanes, a);
    const __m512i key = _mm512_and_si512(_mm512_castps_si512(a), sign);
    masks[i / 16] = _mm512_mask_cmpge_epu32_mask(lanes, key, bound);
  }

  // Whatever is not finite is above every threshold, so the largest value is among those marked.
  alignas(64) uint32_t list[kChunk + 16];
  alignas(64) uint32_t keys[kChunk + 16];
  uint32_t low = *hint;  // in the end at least `kept` keys are at or above it
  int32_t count = list_marked(e, n, masks, list, keys, base, current);
  for (uint32_t step = 1u << 21; count < kept; step <<= 2) {
    low = low > step ? low - step : 0;
    mark_at_least(e, n, low, masks);
    count = list_marked(e, n, masks, list, keys, base, current);
  }
  const int32_t vectors = (count + 15) / 16;
  // A padding key is 0, so it is counted only for threshold 0, where all n values count.
  for (int32_t c = count; c < vectors * 16; ++c) keys[c] = 0;
  __m512i most = _mm512_setzero_si512();
  for (int32_t v = 0; v < vectors; ++v)
    most = _mm512_max_epu32(most, _mm512_load_si512(keys + 16 * v));
  const uint32_t largest = _mm512_reduce_max_epu32(most);
  if (largest >= 0x7f800000) return largest;
  if (kept >= n) {
    for (int32_t j = 0; j < n; ++j) indices[j] = static_cast<uint16_t>(j);
    return largest;
  }
  Bracket bracket{low, largest + 1, 0, count == kept};
  narrow(bracket, kept, *hint + kHintMargin,
         [&](uint32_t bound) { return count_at_least(keys, vectors, bound); });
  low = bracket.low;
  if (bracket.exact) {
    emit(list, keys, vectors, low - 1, 0, indices);
  } else {
    emit(list, keys, vectors, low, static_cast<uint32_t>(kept - bracket.at_high), indices);
  }
  *hint = low > kHintMargin ? low - kHintMargin : 0;
  return largest;
}

}  // namespace covenant::sparse

#endif
