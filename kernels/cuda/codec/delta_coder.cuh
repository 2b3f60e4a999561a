// The adaptive range code of a policy delta on the device; twin of src/codec/range_coder.h and
// src/codec/delta_chunk.cc. One lane codes, contexts lie in shared memory.
#pragma once

#include "runtime/platform.h"

namespace covenant::cuda {

constexpr uint32_t kProbabilityBits = 22;
constexpr uint32_t kProbabilityOne = 1u << kProbabilityBits;
constexpr uint32_t kProbabilityLeast = 64;
constexpr uint32_t kUsesMax = 254;
constexpr int kUnaryContexts = 17;
constexpr uint32_t kDeltaBlock = 16;  // weights

// Where the contexts of each kind begin.
constexpr uint32_t kBlockContexts = 0;                       // [256][2]
constexpr uint32_t kWeightContexts = kBlockContexts + 512;   // [256][2][2]
constexpr uint32_t kSignContexts = kWeightContexts + 1024;   // [256][2]
constexpr uint32_t kSizeContexts = kSignContexts + 512;      // [256][17]
constexpr uint32_t kFirstContexts = kSizeContexts + 256 * kUnaryContexts;  // [17]
constexpr uint32_t kRestContext = kFirstContexts + 17;
constexpr uint32_t kContexts = kRestContext + 1;

// Of one chunk, in shared memory. A state is a probability in 22 bits above its number of uses.
struct DeltaContexts {
  uint32_t states[kContexts];
  uint32_t steps[kUsesMax + 1];

  // By all lanes of a warp.
  __device__ __forceinline__ void clear() {
    for (uint32_t i = threadIdx.x; i < kContexts; i += 32) states[i] = (kProbabilityOne / 2) << 10;
    for (uint32_t n = threadIdx.x; n <= kUsesMax; n += 32) steps[n] = 65536 * 2 / (2 * n + 3);
    __syncwarp();
  }
  // What of `range` stands for a 1.
  __device__ __forceinline__ uint32_t bound(uint32_t context, uint32_t range) const {
    const uint32_t p = states[context] >> 10;
    const uint32_t held = min(max(p, kProbabilityLeast), kProbabilityOne - kProbabilityLeast);
    return static_cast<uint32_t>(static_cast<uint64_t>(range) * held >> kProbabilityBits);
  }
  __device__ __forceinline__ void update(uint32_t context, bool bit) {
    const uint32_t state = states[context];
    const uint32_t uses = state & 1023u;
    const uint32_t p = state >> 10;
    const uint64_t error = bit ? kProbabilityOne - 1 - p : p;
    const auto move = static_cast<uint32_t>(error * steps[uses] >> 16);
    states[context] = (bit ? p + move : p - move) << 10 | (uses < kUsesMax ? uses + 1 : uses);
  }
};

class DeltaEncoder {
 public:
  static constexpr bool kWrites = true;
  // Bytes beyond `capacity` are counted and not written.
  __device__ DeltaEncoder(DeltaContexts& contexts, uint8_t* out, uint32_t capacity)
      : contexts_(contexts), out_(out), capacity_(capacity) {}

  __device__ bool bit(uint32_t context, bool known) {
    const uint32_t bound = contexts_.bound(context, range_);
    if (known) {
      range_ = bound;
    } else {
      low_ += bound;
      range_ -= bound;
    }
    contexts_.update(context, known);
    while (range_ < 1u << 24) {
      range_ <<= 8;
      shift();
    }
    return known;
  }
  // Returns the bytes of the code.
  __device__ uint32_t finish() {
    for (int i = 0; i < 5; ++i) shift();
    return size_;
  }

 private:
  // Bytes wait while a carry could still reach them.
  __device__ void shift() {
    if (low_ < 0xff000000u || low_ >> 32 != 0) {
      const auto carry = static_cast<uint8_t>(low_ >> 32);
      for (; waiting_ > 0; --waiting_, held_ = 0xff) {
        if (size_ < capacity_) out_[size_] = static_cast<uint8_t>(held_ + carry);
        ++size_;
      }
      held_ = static_cast<uint8_t>(low_ >> 24);
    }
    ++waiting_;
    low_ = (low_ & 0x00ffffff) << 8;
  }

  DeltaContexts& contexts_;
  uint8_t* out_;
  uint32_t capacity_;
  uint32_t size_ = 0;
  uint64_t low_ = 0;
  uint32_t range_ = 0xffffffff;
  uint32_t waiting_ = 1;
  uint8_t held_ = 0;
};

class DeltaDecoder {
 public:
  static constexpr bool kWrites = false;
  __device__ DeltaDecoder(DeltaContexts& contexts, const uint8_t* code, uint32_t bytes)
      : contexts_(contexts), at_(code), end_(code + bytes) {
    if (next() != 0) missing_ = true;  // nothing is carried out of the first byte
    for (int i = 0; i < 4; ++i) code_ = code_ << 8 | next();
  }

  __device__ bool bit(uint32_t context, bool) {
    const uint32_t bound = contexts_.bound(context, range_);
    const bool value = code_ < bound;
    if (value) {
      range_ = bound;
    } else {
      code_ -= bound;
      range_ -= bound;
    }
    contexts_.update(context, value);
    while (range_ < 1u << 24) {
      range_ <<= 8;
      code_ = code_ << 8 | next();
    }
    return value;
  }
  // The bytes are those that an encoder writes.
  __device__ bool finished() const { return at_ == end_ && !missing_ && code_ == 0; }

 private:
  __device__ uint32_t next() {
    if (at_ < end_) return __ldg(at_++);
    missing_ = true;
    return 0;
  }

  DeltaContexts& contexts_;
  const uint8_t* at_;
  const uint8_t* end_;
  bool missing_ = false;
  uint32_t code_ = 0;
  uint32_t range_ = 0xffffffff;
};

__device__ __forceinline__ uint32_t exponent_of(uint16_t weight) { return weight >> 7 & 0xffu; }

// Places of bf16 values in their order: neighbouring values have neighbouring places.
__device__ __forceinline__ int32_t place_of(uint16_t bits) {
  return static_cast<uint16_t>((bits & 0x8000) != 0 ? ~bits : bits | 0x8000);
}
__device__ __forceinline__ uint16_t bits_at(int32_t place) {
  return static_cast<uint16_t>((place & 0x8000) != 0 ? place & 0x7fff : ~place);
}

// The walk over the weights of a chunk, by one lane.
template <typename Coder>
class DeltaWalk {
 public:
  __device__ explicit DeltaWalk(Coder& coder) : coder_(coder) {}

  // Whether a block changes; `known` is the answer for an encoder.
  __device__ bool block(uint32_t smallest, bool known) {
    before_ = coder_.bit(kBlockContexts + 2 * smallest + (before_ ? 1u : 0u), known);
    if (!before_) last_ = false;
    return before_;
  }
  // The weights of a block that changes. An encoder reads `next`, a decoder writes it.
  __device__ void weights(const uint16_t* base, uint16_t* next, uint32_t count) {
    bool found = false;
    for (uint32_t i = 0; i < count; ++i) {
      const uint32_t context = kWeightContexts + 4 * exponent_of(base[i]) + (last_ ? 2u : 0u) +
                               (found ? 1u : 0u);
      last_ = coder_.bit(context, Coder::kWrites && base[i] != next[i]);
      found = found || last_;
      if (!last_) {
        if (!Coder::kWrites) next[i] = base[i];
        continue;
      }
      ++changed_;
      step(base[i], next + i);
    }
  }
  __device__ bool good() const { return good_; }
  __device__ uint32_t changed() const { return changed_; }

 private:
  __device__ void step(uint16_t old, uint16_t* next) {
    const uint32_t x = exponent_of(old);
    const int32_t from = place_of(old);
    const int32_t wanted = Coder::kWrites ? place_of(*next) - from : 0;
    const bool negative = coder_.bit(kSignContexts + 2 * x + (old >> 15), wanted < 0);
    const auto size = static_cast<uint32_t>(negative ? -wanted : wanted);
    const int wanted_k = Coder::kWrites ? 31 - __clz(static_cast<int>(size)) : 0;
    int k = 0;
    while (coder_.bit(kSizeContexts + kUnaryContexts * x +
                          static_cast<uint32_t>(min(k, kUnaryContexts - 1)),
                      k < wanted_k)) {
      if (++k > 16) {
        good_ = false;
        k = 16;
        break;
      }
    }
    uint32_t magnitude = 1;
    for (int at = k - 1; at >= 0; --at) {
      const uint32_t context = at == k - 1 ? kFirstContexts + static_cast<uint32_t>(k) : kRestContext;
      magnitude = magnitude << 1 | (coder_.bit(context, (size >> at & 1u) != 0) ? 1u : 0u);
    }
    if (Coder::kWrites) return;
    const int32_t place = negative ? from - static_cast<int32_t>(magnitude)
                                   : from + static_cast<int32_t>(magnitude);
    good_ = good_ && place >= 0 && place <= 0xffff;
    *next = bits_at(place);
  }

  Coder& coder_;
  bool before_ = false;
  bool last_ = false;
  bool good_ = true;
  uint32_t changed_ = 0;
};

}  // namespace covenant::cuda
