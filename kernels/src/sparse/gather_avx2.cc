// The same as gather_avx512.cc with eight lanes: lists are made by extracting bytes by mask.
//
// No inline function from a header is used, because the linker could give its code to callers
// without this instruction set.
#include "sparse/gather.h"

#if defined(__x86_64__)

#include <immintrin.h>

namespace covenant::sparse {
namespace {

constexpr int32_t kChunk = 4096;
constexpr int32_t kAhead = 2048;           // floats to fetch ahead, across the ends of pages
constexpr uint32_t kHintMargin = 1 << 20;  // an eighth of an octave

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

void store_positions(uint32_t* list, uint32_t mask, int32_t first) {
  const __m256i own =
      _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(static_cast<long long>(positions(mask))));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(list),
                      _mm256_add_epi32(own, _mm256_set1_epi32(first)));
}

uint32_t key_at(const float* e, int32_t i) {
  return static_cast<uint32_t>(_mm_cvtsi128_si32(_mm_castps_si128(_mm_load_ss(e + i)))) &
         0x7fffffff;
}

// Indices whose key is at least floor, ascending; returns their number.
int32_t list_at_least(const float* e, int32_t n, uint32_t floor, uint32_t* list) {
  const __m256i sign = _mm256_set1_epi32(0x7fffffff);
  const __m256i below = _mm256_set1_epi32(static_cast<int32_t>(floor) - 1);
  int32_t count = 0;
  int32_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const __m256i key = _mm256_and_si256(_mm256_castps_si256(_mm256_loadu_ps(e + i)), sign);
    const uint32_t mask = mask_at_least(key, below);
    store_positions(list + count, mask, i);
    count += __builtin_popcount(mask);
  }
  for (; i < n; ++i) {
    list[count] = static_cast<uint32_t>(i);
    count += key_at(e, i) >= floor;
  }
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
  alignas(64) uint32_t list[kChunk + 16];
  const __m256 decay = _mm256_set1_ps(beta);
  const __m256i sign = _mm256_set1_epi32(0x7fffffff);
  const __m256i below = _mm256_set1_epi32(static_cast<int32_t>(*hint) - 1);
  __m256i most = _mm256_setzero_si256();
  int32_t count = 0;
  int32_t i = 0;
  for (; i + 8 <= n; i += 8) {
    if ((i & 8) == 0) {
      _mm_prefetch(reinterpret_cast<const char*>(base + i + kAhead), _MM_HINT_T0);
      _mm_prefetch(reinterpret_cast<const char*>(current + i + kAhead), _MM_HINT_T0);
      _mm_prefetch(reinterpret_cast<const char*>(e + i + kAhead), _MM_HINT_T0);
    }
    const __m256 step = _mm256_sub_ps(_mm256_loadu_ps(base + i), _mm256_loadu_ps(current + i));
    const __m256 a = _mm256_fmadd_ps(decay, _mm256_loadu_ps(e + i), step);
    _mm256_storeu_ps(e + i, a);
    const __m256i key = _mm256_and_si256(_mm256_castps_si256(a), sign);
    most = _mm256_max_epu32(most, key);
    const uint32_t mask = mask_at_least(key, below);
    store_positions(list + count, mask, i);
    count += __builtin_popcount(mask);
  }
  alignas(32) uint32_t lanes[8];
  _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), most);
  uint32_t largest = 0;
  for (const uint32_t lane : lanes) largest = lane > largest ? lane : largest;
  for (; i < n; ++i) {
    e[i] = __builtin_fmaf(beta, e[i], base[i] - current[i]);
    const uint32_t key = key_at(e, i);
    largest = key > largest ? key : largest;
    list[count] = static_cast<uint32_t>(i);
    count += key >= *hint;
  }
  if (largest >= 0x7f800000) return largest;
  if (kept >= n) {
    for (int32_t j = 0; j < n; ++j) indices[j] = static_cast<uint16_t>(j);
    return largest;
  }

  uint32_t low = *hint;  // at least `kept` keys are at or above it
  for (uint32_t step = 1u << 21; count < kept; step <<= 2) {
    low = low > step ? low - step : 0;
    count = list_at_least(e, n, low, list);
  }
  alignas(64) uint32_t keys[kChunk + 16];
  for (int32_t c = 0; c < count; ++c) keys[c] = key_at(e, static_cast<int32_t>(list[c]));
  const int32_t vectors = (count + 7) / 8;
  for (int32_t c = count; c < vectors * 8; ++c) keys[c] = 0;
  uint32_t high = largest + 1;  // fewer than `kept` keys are at or above it
  int32_t at_high = 0;
  bool exact = count == kept;
  while (!exact && high - low > 1) {
    const uint32_t middle = low + (high - low) / 2;
    const int32_t above = count_at_least(keys, vectors, middle);
    if (above < kept) {
      high = middle;
      at_high = above;
    } else {
      low = middle;
      exact = above == kept;
    }
  }
  if (exact) {
    emit(list, keys, vectors, low - 1, 0, indices);
  } else {
    emit(list, keys, vectors, low, static_cast<uint32_t>(kept - at_high), indices);
  }
  *hint = low > kHintMargin ? low - kHintMargin : 0;
  return largest;
}

}  // namespace covenant::sparse

#endif
