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
namespace {

struct Bytes {
  uint8_t at[64];
};
constexpr Bytes iota() {
  Bytes out{};
  for (int i = 0; i < 64; ++i) out.at[i] = static_cast<uint8_t>(i);
  return out;
}
// For each eight indices the six bytes of their low bits, twice two of them unused.
constexpr Bytes groups() {
  Bytes out{};
  for (int i = 0; i < 64; ++i)
    out.at[i] = static_cast<uint8_t>(6 * (i / 8) + (i % 8 < 6 ? i % 8 : 0));
  return out;
}
// Words 1 to 32 of two vectors.
struct Words {
  uint16_t at[32];
};
constexpr Words shift() {
  Words out{};
  for (int i = 0; i < 32; ++i) out.at[i] = static_cast<uint16_t>(i + 1);
  return out;
}
alignas(64) constexpr Words kShift = shift();
alignas(64) constexpr Bytes kIota = iota();
alignas(64) constexpr Bytes kGroups = groups();

}  // namespace

bool decode64_avx512vbmi(const uint8_t* fields, uint16_t indices[64]) {
  uint64_t upper[2];
  __builtin_memcpy(upper, fields + 48, sizeof upper);
  const int first = __builtin_popcountll(upper[0]);
  if (first + __builtin_popcountll(upper[1]) != 64) return false;
  // Places of the set bits, then how many clear ones are before each.
  const __m512i order = _mm512_load_si512(kIota.at);
  const __m512i second = _mm512_add_epi8(_mm512_maskz_compress_epi8(upper[1], order),
                                         _mm512_set1_epi8(64));
  const uint64_t behind = first == 64 ? 0 : ~0ull << first;
  const __m512i places = _mm512_mask_expand_epi8(_mm512_maskz_compress_epi8(upper[0], order),
                                                 behind, second);
  const __m512i rows = _mm512_sub_epi8(places, order);
  // The six low bits of each: eight fields from every six bytes.
  const __m512i packed =
      _mm512_permutexvar_epi8(_mm512_load_si512(kGroups.at), _mm512_maskz_loadu_epi8(
                                                                 0xffffffffffff, fields));
  const __m512i shifts = _mm512_set1_epi64(0x2a241e18120c0600);
  const __m512i lows =
      _mm512_and_si512(_mm512_multishift_epi64_epi8(shifts, packed), _mm512_set1_epi8(63));
  const auto words = [](__m512i bytes, int half) __attribute__((always_inline)) {
    return _mm512_cvtepu8_epi16(half == 0 ? _mm512_castsi512_si256(bytes)
                                          : _mm512_extracti64x4_epi64(bytes, 1));
  };
  const __m512i low = _mm512_or_si512(_mm512_slli_epi16(words(rows, 0), 6), words(lows, 0));
  const __m512i high = _mm512_or_si512(_mm512_slli_epi16(words(rows, 1), 6), words(lows, 1));
  _mm512_storeu_si512(indices, low);
  _mm512_storeu_si512(indices + 32, high);
  // Each is below the one after it, the last below 4096.
  const __m512i shift = _mm512_load_si512(kShift.at);
  const __mmask32 ascending =
      _mm512_cmplt_epu16_mask(low, _mm512_permutex2var_epi16(low, shift, high));
  const __mmask32 rest = _mm512_cmplt_epu16_mask(
      high, _mm512_permutex2var_epi16(high, shift, _mm512_set1_epi16(4096)));
  return (ascending & rest) == 0xffffffff;
}

}  // namespace covenant::sparse

#endif
