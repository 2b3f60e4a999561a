// The same as gather_avx512.cc with eight lanes: lists are made by extracting bytes by mask.
//
// No inline function with external linkage is used, because the linker could give its code to callers
// without this instruction set.
#include "sparse/gather.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include "sparse/threshold.h"

namespace covenant::sparse {
namespace {

constexpr int32_t kChunk = 4096;
constexpr int32_t kAhead = 128;            // floats of the next chunk to fetch during selection
constexpr uint32_t kHintMargin = 1 << 21;  // a quarter of an octave

// Keys are below 2^31, so signed comparison is right.
uint32_t mask_at_least(__m256i key, __m256i floor_minus_one) {
  return static_cast<uint32_t>(
      _mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpgt_epi32(key, floor_minus_one))));
}

// The positions of the set bits of an eight-bit mask, in the low bytes.
uint64_t positions(uint32_t mask) {
  const uint64_t bytes = _pdep_u64(mask, 0x0101010101010101) * 0xff;
  return _pext_u64(0x0706050403020100, bytes);
}

uint32_t key_at(const float* e, int32_t i) {
  return static_cast<uint32_t>(_mm_cvtsi128_si32(_mm_castps_si128(_mm_load_ss(e + i)))) &
         0x7fffffff;
}

// Bit i of the masks says whether the key of e[i] is at least floor.
void mark_at_least(const float* e, int32_t n, uint32_t floor, uint8_t* masks) {
  const __m256i sign = _mm256_set1_epi32(0x7fffffff);
  const __m256i below = _mm256_set1_epi32(static_cast<int32_t>(floor) - 1);
  int32_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const __m256i key = _mm256_and_si256(_mm256_castps_si256(_mm256_loadu_ps(e + i)), sign);
    masks[i / 8] = static_cast<uint8_t>(mask_at_least(key, below));
  }
  uint32_t last = 0;
  for (int32_t lane = 0; i + lane < n; ++lane)
    last |= (key_at(e, i + lane) >= floor ? 1u : 0u) << lane;
  if (i < n) masks[i / 8] = static_cast<uint8_t>(last);
}

// The marked indices, ascending, and their keys; returns their number.
int32_t list_marked(const float* e, int32_t n, const uint8_t* masks, uint32_t* list,
                    uint32_t* keys) {
  int32_t count = 0;
  for (int32_t word = 0; word < (n + 63) / 64; ++word) {
    uint64_t mask;
    __builtin_memcpy(&mask, masks + 8 * word, sizeof mask);
    const int32_t here = static_cast<int32_t>(__builtin_popcountll(mask));
    // Few words mark more than four, and taking four always costs less than guessing how many.
    for (int32_t c = 0; c < 4; ++c, mask &= mask - 1)
      list[count + c] = static_cast<uint32_t>(64 * word) + static_cast<uint32_t>(_tzcnt_u64(mask));
    for (int32_t c = 4; c < here; ++c, mask &= mask - 1)
      list[count + c] = static_cast<uint32_t>(64 * word) + static_cast<uint32_t>(_tzcnt_u64(mask));
    count += here;
  }
  for (int32_t c = 0; c < count; ++c) keys[c] = key_at(e, static_cast<int32_t>(list[c]));
  return count;
}

// Number of keys[0 .. vectors * 8) at or above floor >= 1.
int32_t count_at_least(const uint32_t* keys, int32_t vectors, uint32_t floor) {
  const __m256i below = _mm256_set1_epi32(static_cast<int32_t>(floor) - 1);
  int32_t count = 0;
  for (int32_t v = 0; v < vectors; ++v) {
    count += __builtin_popcount(mask_at_least(
        _mm256_loadu_si256(reinterpret_cast<const __m256i*>(keys + 8 * v)), below));
  }
  return count;
}

// Of the candidates those with a key above threshold, and the first `ties` of those equal to it.
void emit(const uint32_t* list, const uint32_t* keys, int32_t vectors, uint32_t threshold,
          uint32_t ties, uint16_t* indices) {
  const __m256i bound = _mm256_set1_epi32(static_cast<int32_t>(threshold));
  for (int32_t v = 0; v < vectors; ++v) {
    const __m256i key = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(keys + 8 * v));
    const uint32_t above = mask_at_least(key, bound);
    const auto equal = static_cast<uint32_t>(
        _mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpeq_epi32(key, bound))));
    const auto here = static_cast<uint32_t>(__builtin_popcount(equal));
    const uint32_t take = here < ties ? here : ties;
    ties -= take;
    const uint32_t mask = above | _pdep_u32((1u << take) - 1, equal);
    const __m256i lanes =
        _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(static_cast<long long>(positions(mask))));
    const __m256i chosen = _mm256_permutevar8x32_epi32(
        _mm256_loadu_si256(reinterpret_cast<const __m256i*>(list + 8 * v)), lanes);
    const __m128i narrow = _mm_packus_epi32(_mm256_castsi256_si128(chosen),
                                            _mm256_extracti128_si256(chosen, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(indices), narrow);
    indices += __builtin_popcount(mask);
  }
}

}  // namespace

uint32_t gather_avx2(const float* base, const float* current, float beta, float* e, int32_t n,
                     int32_t kept, uint32_t* hint, uint16_t* indices) {
  alignas(64) uint8_t masks[kChunk / 8] = {};
  const __m256 decay = _mm256_set1_ps(beta);
  const __m256i sign = _mm256_set1_epi32(0x7fffffff);
  const __m256i below = _mm256_set1_epi32(static_cast<int32_t>(*hint) - 1);
  int32_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const __m256 step = _mm256_sub_ps(_mm256_loadu_ps(base + i), _mm256_loadu_ps(current + i));
    const __m256 a = _mm256_fmadd_ps(decay, _mm256_loadu_ps(e + i), step);
    _mm256_storeu_ps(e + i, a);
    const __m256i key = _mm256_and_si256(_mm256_castps_si256(a), sign);
    masks[i / 8] = static_cast<uint8_t>(mask_at_least(key, below));
  }
  uint32_t last = 0;
  for (int32_t lane = 0; i + lane < n; ++lane) {
    e[i + lane] = __builtin_fmaf(beta, e[i + lane], base[i + lane] - current[i + lane]);
    last |= (key_at(e, i + lane) >= *hint ? 1u : 0u) << lane;
  }
  if (i < n) masks[i / 8] = static_cast<uint8_t>(last);
  // The processor follows the streams by itself, but not while nothing reads them.
  for (int32_t next = n; next < n + kAhead; next += 16) {
    _mm_prefetch(reinterpret_cast<const char*>(base + next), _MM_HINT_T0);
    _mm_prefetch(reinterpret_cast<const char*>(current + next), _MM_HINT_T0);
    _mm_prefetch(reinterpret_cast<const char*>(e + next), _MM_HINT_T0);
  }

  // Whatever is not finite is above every threshold, so the largest value is among those marked.
  alignas(64) uint32_t list[kChunk + 16];
  alignas(64) uint32_t keys[kChunk + 16];
  uint32_t low = *hint;  // in the end at least `kept` keys are at or above it
  int32_t count = list_marked(e, n, masks, list, keys);
  for (uint32_t step = 1u << 21; count < kept; step <<= 2) {
    low = low > step ? low - step : 0;
    mark_at_least(e, n, low, masks);
    count = list_marked(e, n, masks, list, keys);
  }
  const int32_t vectors = (count + 7) / 8;
  // A padding key is 0, so it is counted only for threshold 0, where all n values count.
  for (int32_t c = count; c < vectors * 8; ++c) keys[c] = 0;
  __m256i most = _mm256_setzero_si256();
  for (int32_t v = 0; v < vectors; ++v)
    most = _mm256_max_epu32(most,
                            _mm256_load_si256(reinterpret_cast<const __m256i*>(keys + 8 * v)));
  alignas(32) uint32_t lanes[8];
  _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), most);
  uint32_t largest = 0;
  for (const uint32_t lane : lanes) largest = lane > largest ? lane : largest;
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
