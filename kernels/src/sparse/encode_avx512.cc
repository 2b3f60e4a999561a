// No inline function from a header is used, because the linker could give its code to callers
// without this instruction set.
#include "sparse/encode.h"

#if defined(__x86_64__)

#if !defined(__clang__)
// GCC 12 takes the undefined source operand of some intrinsics for a mistake of the caller.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

namespace covenant::sparse {
Magnitude magnitude_avx512(const float* values, int32_t kept) {
  const __m512i sign = _mm512_set1_epi32(0x7fffffff);
  const __m512i one = _mm512_set1_epi32(1);
  const auto keys = [&](int32_t j) __attribute__((always_inline)) {
    const __mmask16 lanes =
        kept - j >= 16 ? __mmask16(0xffff) : static_cast<__mmask16>((1u << (kept - j)) - 1);
    return _mm512_and_si512(_mm512_castps_si512(_mm512_maskz_loadu_ps(lanes, values + j)), sign);
  };
  __m512i most = _mm512_setzero_si512();
  for (int32_t j = 0; j < kept; j += 16) most = _mm512_max_epu32(most, keys(j));
  const uint32_t largest = _mm512_reduce_max_epu32(most);
  if (largest == 0) return {0, 0};
  // Subnormals have the exponent of the smallest normals and no leading one.
  const uint32_t exponent = largest >> 23 > 0 ? largest >> 23 : 1;
  const __m512i common = _mm512_set1_epi32(static_cast<int32_t>(exponent));
  __m512i sums = _mm512_setzero_si512();  // at most 256 mantissas below 2^24 a lane
  for (int32_t j = 0; j < kept; j += 16) {
    const __m512i key = keys(j);
    const __m512i own = _mm512_srli_epi32(key, 23);
    const __m512i fraction = _mm512_and_si512(key, _mm512_set1_epi32(0x7fffff));
    const __m512i mantissa = _mm512_mask_or_epi32(
        fraction, _mm512_test_epi32_mask(own, own), fraction, _mm512_set1_epi32(0x800000));
    const __m512i shift = _mm512_sub_epi32(common, _mm512_max_epu32(own, one));
    sums = _mm512_add_epi32(sums, _mm512_srlv_epi32(mantissa, shift));
  }
  const __m512i wide = _mm512_add_epi64(_mm512_srli_epi64(sums, 32),
                                        _mm512_and_si512(sums, _mm512_set1_epi64(0xffffffff)));
  return {exponent, static_cast<uint64_t>(_mm512_reduce_add_epi64(wide))};
}

void encode64_avx512(const EncodeFields& fields, int32_t, int32_t mode, const EncodeLevels& levels,
                     const uint16_t* indices, const float* values, float* e) {
  const __m512 low = _mm512_set1_ps(levels.low);
  const __m512 high = _mm512_set1_ps(levels.high);
  const __m512 middle = _mm512_set1_ps(levels.middle);
  const __m512i sign_bit = _mm512_set1_epi32(static_cast<int32_t>(0x80000000));
  alignas(64) float rest[64];
  uint64_t signs = 0;
  uint64_t highs = 0;
  for (int v = 0; v < 4; ++v) {
    const __m512 value = _mm512_loadu_ps(values + 16 * v);
    const __m512i bits = _mm512_castps_si512(value);
    const __mmask16 is_high = _mm512_cmp_ps_mask(_mm512_abs_ps(value), middle, _CMP_GT_OQ);
    const __m512i magnitude = _mm512_castps_si512(_mm512_mask_mov_ps(low, is_high, high));
    const __m512i sent = _mm512_or_si512(magnitude, _mm512_and_si512(bits, sign_bit));
    _mm512_store_ps(rest + 16 * v, _mm512_sub_ps(value, _mm512_castsi512_ps(sent)));
    signs |= static_cast<uint64_t>(_mm512_movepi32_mask(bits)) << (16 * v);
    highs |= static_cast<uint64_t>(is_high) << (16 * v);
  }
  for (int j = 0; j < 64; ++j) e[indices[j]] = rest[j];

  if (mode == 2) {
    const uint64_t words[2] = {_pdep_u64(signs, 0x5555555555555555) |
                                   _pdep_u64(highs, 0xaaaaaaaaaaaaaaaa),
                               _pdep_u64(signs >> 32, 0x5555555555555555) |
                                   _pdep_u64(highs >> 32, 0xaaaaaaaaaaaaaaaa)};
    __builtin_memcpy(fields.codes, words, sizeof words);
  } else {
    __builtin_memcpy(fields.codes, &signs, sizeof signs);
  }

  // Four times six bits become 24 by two multiply-adds; three bytes of every four are kept.
  const __m512i first = _mm512_loadu_si512(indices);
  const __m512i second = _mm512_loadu_si512(indices + 32);
  const __m512i mask = _mm512_set1_epi16(63);
  const __m512i bytes = _mm512_inserti64x4(
      _mm512_castsi256_si512(_mm512_cvtepi16_epi8(_mm512_and_si512(first, mask))),
      _mm512_cvtepi16_epi8(_mm512_and_si512(second, mask)), 1);
  const __m512i pairs = _mm512_maddubs_epi16(bytes, _mm512_set1_epi16(0x4001));
  const __m512i fours = _mm512_madd_epi16(pairs, _mm512_set1_epi32(0x10000001));
  const __m512i compact = _mm512_shuffle_epi8(
      fours, _mm512_broadcast_i32x4(
                 _mm_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1)));
  const __m512i order = _mm512_setr_epi32(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, 3, 7, 11, 15);
  _mm512_mask_storeu_epi32(fields.low, 0x0fff, _mm512_permutexvar_epi32(order, compact));

  // Bit (index / 64) + j of 128; a shift by 64 or more leaves nothing.
  __m512i lower = _mm512_setzero_si512();
  __m512i upper = _mm512_setzero_si512();
  const __m512i one = _mm512_set1_epi64(1);
  __m512i rank = _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7);
  for (int v = 0; v < 8; ++v) {
    const __m512i index = _mm512_cvtepu16_epi64(
        _mm_loadu_si128(reinterpret_cast<const __m128i*>(indices + 8 * v)));
    const __m512i bit = _mm512_add_epi64(_mm512_srli_epi64(index, 6), rank);
    lower = _mm512_or_si512(lower, _mm512_sllv_epi64(one, bit));
    upper = _mm512_or_si512(
        upper, _mm512_sllv_epi64(one, _mm512_sub_epi64(bit, _mm512_set1_epi64(64))));
    rank = _mm512_add_epi64(rank, _mm512_set1_epi64(8));
  }
  const int64_t bitmap[2] = {_mm512_reduce_or_epi64(lower), _mm512_reduce_or_epi64(upper)};
  __builtin_memcpy(fields.upper, bitmap, sizeof bitmap);
}

}  // namespace covenant::sparse

#endif
