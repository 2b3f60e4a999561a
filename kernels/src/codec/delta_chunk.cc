#include <algorithm>
#include <bit>
#include <cstring>
#include <memory>

#include "codec/delta.h"
#include "codec/range_coder.h"

namespace covenant::codec {
namespace {

constexpr uint64_t kBlock = 16;
constexpr int kUnaryContexts = 17;

uint32_t exponent_of(uint16_t weight) { return weight >> 7 & 0xff; }

// Places of bf16 values in their order: neighbouring values have neighbouring places.
uint16_t place_of(uint16_t bits) {
  return static_cast<uint16_t>(bits & 0x8000 ? ~bits : bits | 0x8000);
}
uint16_t bits_at(uint16_t place) {
  return static_cast<uint16_t>(place & 0x8000 ? place & 0x7fff : ~place);
}

// All contexts of a chunk, and the walk over its weights: the same for both directions. Coder::bit
// codes what it is given (encoder) or returns what it reads (decoder).
template <typename Coder>
class Walk {
 public:
  explicit Walk(Coder& coder) : coder_(coder) {}

  // False when a step leads out of the range of places, or the code ends early.
  bool run(const uint16_t* base, uint16_t* next, uint64_t count, uint64_t* changed) {
    bool before = false;
    for (uint64_t at = 0; at < count; at += kBlock) {
      const uint64_t end = std::min(count, at + kBlock);
      uint32_t smallest = 255;
      for (uint64_t i = at; i < end; ++i) smallest = std::min(smallest, exponent_of(base[i]));
      const bool any = coder_.bit(blocks_[smallest][before], [&] {
        return std::memcmp(base + at, next + at, (end - at) * sizeof base[0]) != 0;
      });
      before = any;
      if (!any) {
        coder_.copy(base + at, next + at, end - at);
        last_ = false;
        continue;
      }
      bool found = false;
      for (uint64_t i = at; i < end; ++i) {
        const bool changes = coder_.bit(weights_[exponent_of(base[i])][last_][found],
                                        [&] { return base[i] != next[i]; });
        last_ = changes;
        found |= changes;
        if (!changes) {
          coder_.copy(base + i, next + i, 1);
          continue;
        }
        ++*changed;
        if (!step(base[i], next + i)) return false;
      }
      if (coder_.exhausted()) return false;
    }
    return true;
  }

 private:
  bool step(uint16_t old, uint16_t* next) {
    const uint32_t x = exponent_of(old);
    const int32_t from = place_of(old);
    int32_t step = coder_.known() ? place_of(*next) - from : 0;
    const bool negative = coder_.bit(signs_[x][old >> 15], [&] { return step < 0; });
    const auto size = static_cast<uint32_t>(negative ? -step : step);
    int k = 0;
    while (coder_.bit(sizes_[x][std::min(k, kUnaryContexts - 1)],
                      [&] { return k + 1 < static_cast<int>(std::bit_width(size)); })) {
      if (++k > 16) return false;
    }
    uint32_t magnitude = 1;
    for (int bit = k - 1; bit >= 0; --bit) {
      const bool value = coder_.bit(bit == k - 1 ? firsts_[k] : rest_,
                                    [&] { return (size >> bit & 1) != 0; });
      magnitude = magnitude << 1 | (value ? 1u : 0u);
    }
    if (coder_.known()) return true;
    step = static_cast<int32_t>(magnitude);
    const int32_t place = negative ? from - step : from + step;
    if (place < 0 || place > 0xffff) return false;
    *next = bits_at(static_cast<uint16_t>(place));
    return true;
  }

  Coder& coder_;
  bool last_ = false;
  Probability blocks_[256][2];
  Probability weights_[256][2][2];
  Probability signs_[256][2];
  Probability sizes_[256][kUnaryContexts];
  Probability firsts_[17];
  Probability rest_;
};

class Writing {
 public:
  explicit Writing(std::vector<uint8_t>& out) : coder_(out) {}
  template <typename Known>
  bool bit(Probability& probability, const Known& known) {
    const bool value = known();
    coder_.put(probability, value);
    return value;
  }
  static void copy(const uint16_t*, const uint16_t*, uint64_t) {}
  static constexpr bool known() { return true; }
  static constexpr bool exhausted() { return false; }
  void finish() { coder_.finish(); }

 private:
  RangeEncoder coder_;
};

class Reading {
 public:
  Reading(const uint8_t* code, uint64_t bytes) : coder_(code, bytes) {}
  template <typename Known>
  bool bit(Probability& probability, const Known&) {
    return coder_.get(probability);
  }
  static void copy(const uint16_t* from, uint16_t* to, uint64_t count) {
    if (from != to) std::memcpy(to, from, count * sizeof *to);
  }
  static constexpr bool known() { return false; }
  bool exhausted() const { return coder_.exhausted(); }
  bool finished() const { return coder_.finished(); }

 private:
  RangeDecoder coder_;
};

}  // namespace

uint64_t encode_delta_chunk(const uint16_t* base, const uint16_t* next, uint64_t count,
                            std::vector<uint8_t>& out) {
  uint64_t changed = 0;
  Writing writing(out);
  const auto walk = std::make_unique<Walk<Writing>>(writing);
  // The walk only reads `next` when it writes code.
  walk->run(base, const_cast<uint16_t*>(next), count, &changed);
  writing.finish();
  return changed;
}

bool decode_delta_chunk(const uint8_t* code, uint64_t bytes, const uint16_t* base, uint64_t count,
                        uint16_t* next, uint64_t* changed) {
  *changed = 0;
  Reading reading(code, bytes);
  const auto walk = std::make_unique<Walk<Reading>>(reading);
  return walk->run(base, next, count, changed) && reading.finished();
}

}  // namespace covenant::codec
