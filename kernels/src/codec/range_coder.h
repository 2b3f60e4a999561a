// Adaptive binary range coder. Integer arithmetic alone, so every machine writes the same bytes.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace covenant::codec {

// The probability that the next bit is 1, in 22 bits, and how often it was used, in the lower ten.
class Probability {
 public:
  uint32_t value() const {
    const uint32_t p = state_ >> 10;
    return p < kLeast ? kLeast : p > kOne - kLeast ? kOne - kLeast : p;
  }
  void update(bool bit) {
    const uint32_t uses = state_ & 1023;
    const int64_t p = state_ >> 10;
    const int64_t target = bit ? kOne - 1 : 0;
    const int64_t moved = p + ((target - p) * kSteps[uses]) / 65536;
    state_ = static_cast<uint32_t>(moved) << 10 | (uses < kUsesMax ? uses + 1 : uses);
  }
  static constexpr int kBits = 22;

 private:
  static constexpr uint32_t kOne = 1u << kBits;
  static constexpr uint32_t kLeast = 64;
  static constexpr uint32_t kUsesMax = 254;
  static constexpr std::array<uint16_t, kUsesMax + 1> kSteps = [] {
    std::array<uint16_t, kUsesMax + 1> steps{};
    for (uint32_t n = 0; n <= kUsesMax; ++n)
      steps[n] = static_cast<uint16_t>(65536 * 2 / (2 * n + 3));
    return steps;
  }();
  uint32_t state_ = (kOne / 2) << 10;
};

class RangeEncoder {
 public:
  explicit RangeEncoder(std::vector<uint8_t>& out) : out_(out) {}

  void put(Probability& probability, bool bit) {
    const auto bound = static_cast<uint32_t>(
        static_cast<uint64_t>(range_) * probability.value() >> Probability::kBits);
    if (bit) {
      range_ = bound;
    } else {
      low_ += bound;
      range_ -= bound;
    }
    probability.update(bit);
    normalise();
  }

  // `bits` <= 16 bits that are as likely set as not.
  void put_raw(uint32_t value, int bits) {
    range_ >>= bits;
    low_ += static_cast<uint64_t>(value) * range_;
    normalise();
  }

  void finish() {
    for (int i = 0; i < 5; ++i) shift();
  }

 private:
  void normalise() {
    while (range_ < 1u << 24) {
      range_ <<= 8;
      shift();
    }
  }

  // Bytes wait while a carry could still reach them.
  void shift() {
    if (low_ < 0xff000000u || low_ >> 32 != 0) {
      const auto carry = static_cast<uint8_t>(low_ >> 32);
      for (; waiting_ > 0; --waiting_, held_ = 0xff)
        out_.push_back(static_cast<uint8_t>(held_ + carry));
      held_ = static_cast<uint8_t>(low_ >> 24);
    }
    ++waiting_;
    low_ = (low_ & 0x00ffffff) << 8;
  }

  std::vector<uint8_t>& out_;
  uint64_t low_ = 0;
  uint32_t range_ = 0xffffffff;
  uint64_t waiting_ = 1;
  uint8_t held_ = 0;
};

// Reading beyond the end yields zeros; finished() tells whether that happened.
class RangeDecoder {
 public:
  RangeDecoder(const uint8_t* bytes, uint64_t length) : at_(bytes), end_(bytes + length) {
    if (next() != 0) ++missing_;  // nothing is carried out of the first byte
    for (int i = 0; i < 4; ++i) code_ = code_ << 8 | next();
  }

  bool get(Probability& probability) {
    const auto bound = static_cast<uint32_t>(
        static_cast<uint64_t>(range_) * probability.value() >> Probability::kBits);
    const bool bit = code_ < bound;
    if (bit) {
      range_ = bound;
    } else {
      code_ -= bound;
      range_ -= bound;
    }
    probability.update(bit);
    normalise();
    return bit;
  }

  uint32_t get_raw(int bits) {
    range_ >>= bits;
    uint32_t value = code_ / range_;
    if (const uint32_t most = (1u << bits) - 1; value > most) {  // no encoder leaves this code
      value = most;
      ++missing_;
    }
    code_ -= value * range_;
    normalise();
    return value;
  }

  // The bytes are those that an encoder writes: all were read, none was missing, and they name the
  // low end of the range.
  bool finished() const { return at_ == end_ && missing_ == 0 && code_ == 0; }
  bool exhausted() const { return missing_ > 0; }

 private:
  void normalise() {
    while (range_ < 1u << 24) {
      range_ <<= 8;
      code_ = code_ << 8 | next();
    }
  }

  uint8_t next() {
    if (at_ < end_) return *at_++;
    ++missing_;
    return 0;
  }

  const uint8_t* at_;
  const uint8_t* end_;
  uint64_t missing_ = 0;
  uint32_t code_ = 0;
  uint32_t range_ = 0xffffffff;
};

}  // namespace covenant::codec
