#include "sparse/decode.h"

#include <bit>

#include "sparse/layout.h"

namespace covenant::sparse {

bool decode64_portable(const uint8_t* fields, uint16_t indices[64]) {
  const uint8_t* const upper = fields + 48;
  int32_t j = 0;
  int32_t last = -1;
  for (int32_t byte = 0; byte < 16; ++byte) {
    for (uint32_t rest = upper[byte]; rest != 0; rest &= rest - 1) {
      if (j == 64) return false;
      const uint32_t low = get_bits(fields, static_cast<uint64_t>(j) * kLowBits, kLowBits);
      const int32_t index =
          (byte * 8 + std::countr_zero(rest) - j) * 64 + static_cast<int32_t>(low);
      if (index >= COV_SPARSE_CHUNK || index <= last) return false;
      last = index;
      indices[j++] = static_cast<uint16_t>(index);
    }
  }
  return j == 64;
}

int32_t count_high_portable(const uint8_t* codes, int32_t bytes) {
  int32_t count = 0;
  for (int32_t at = 0; at < bytes; ++at) count += std::popcount(codes[at] & 0xaau);
  return count;
}

}  // namespace covenant::sparse
