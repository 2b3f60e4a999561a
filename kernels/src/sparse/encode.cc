#include "sparse/encode.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "sparse/layout.h"

namespace covenant::sparse {
namespace {

// Collects bit fields and writes them as whole bytes.
class BitWriter {
 public:
  explicit BitWriter(uint8_t* at) : at_(at) {}
  void put(uint32_t value, int width) {
    held_ |= static_cast<uint64_t>(value) << count_;
    count_ += width;
    if (count_ >= 32) {
      store_u32(at_, static_cast<uint32_t>(held_));
      at_ += 4;
      held_ >>= 32;
      count_ -= 32;
    }
  }
  void finish() {
    for (; count_ > 0; count_ -= 8, held_ >>= 8) *at_++ = static_cast<uint8_t>(held_);
  }

 private:
  uint8_t* at_;
  uint64_t held_ = 0;
  int count_ = 0;
};

}  // namespace

Magnitude magnitude_portable(const float* values, int32_t kept) {
  uint32_t largest = 0;
  for (int32_t j = 0; j < kept; ++j) {
    const uint32_t key = std::bit_cast<uint32_t>(values[j]) & 0x7fffffff;
    largest = std::max(largest, key);
  }
  if (largest == 0) return {0, 0};
  // Subnormals have the exponent of the smallest normals and no leading one.
  const uint32_t exponent = std::max(1u, largest >> 23);
  uint64_t sum = 0;
  for (int32_t j = 0; j < kept; ++j) {
    const uint32_t key = std::bit_cast<uint32_t>(values[j]) & 0x7fffffff;
    const uint32_t own = key >> 23;
    const uint32_t mantissa = (key & 0x7fffff) | (own > 0 ? 0x800000u : 0u);
    const uint32_t shift = exponent - std::max(1u, own);
    if (shift < 24) sum += mantissa >> shift;
  }
  return {exponent, sum};
}

void encode_portable(const EncodeFields& fields, int32_t kept, int32_t mode,
                     const EncodeLevels& levels, const uint16_t* indices, const float* values,
                     float* e) {
  BitWriter low(fields.low);
  BitWriter codes(fields.codes);
  for (int32_t j = 0; j < kept; ++j) {
    const uint32_t index = indices[j];
    const uint32_t sign = std::bit_cast<uint32_t>(values[j]) >> 31;
    const uint32_t high = std::fabs(values[j]) > levels.middle;
    low.put(index & 63, kLowBits);
    set_bit(fields.upper, (index >> 6) + static_cast<uint32_t>(j));
    codes.put(mode == 2 ? sign | high << 1 : sign, mode);
    const uint32_t magnitude = std::bit_cast<uint32_t>(high ? levels.high : levels.low);
    e[index] = values[j] - std::bit_cast<float>(magnitude | sign << 31);
  }
  low.finish();
  codes.finish();
}

}  // namespace covenant::sparse
