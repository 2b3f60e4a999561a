#include "sparse/levels.h"

#include <algorithm>

namespace covenant::sparse {
namespace {

// Borders between neighbouring 1/32 octaves: mantissas of 2^((2i + 1)/64).
constexpr std::array<uint32_t, 32> kBorder32 = {
    0x8164d2, 0x843a29, 0x871f62, 0x8a14d5, 0x8d1adf, 0x9031dc, 0x935a2b, 0x96942d,
    0x99e046, 0x9d3eda, 0xa0b051, 0xa43516, 0xa7cd94, 0xab7a3a, 0xaf3b79, 0xb311c4,
    0xb6fd92, 0xbaff5b, 0xbf179a, 0xc346cd, 0xc78d75, 0xcbec15, 0xd06334, 0xd4f35b,
    0xd99d16, 0xde60f5, 0xe33f89, 0xe8396a, 0xed4f30, 0xf28177, 0xf7d0df, 0xfd3e0c};

// x = mantissa·2^exponent with a 24-bit mantissa, lower bits cut off; x > 0.
struct Decomposed {
  uint32_t mantissa;
  int32_t exponent;
};

Decomposed decompose(uint64_t x) {
  const int32_t top = 63 - std::countl_zero(x);
  const uint64_t mantissa = top >= 23 ? x >> (top - 23) : x << (23 - top);
  return {static_cast<uint32_t>(mantissa), top - 23};
}

Decomposed decompose_key(uint32_t key) {
  const int32_t exponent = static_cast<int32_t>(key >> 23);
  const uint32_t fraction = key & 0x7fffff;
  if (exponent > 0) return {fraction | 0x800000, exponent - 150};
  const Decomposed subnormal = decompose(fraction);
  return {subnormal.mantissa, subnormal.exponent - 149};
}

// round(16·log2(mantissa / 2^23)): how many odd entries of kOctave32 are not above it.
int32_t sixteenths(uint32_t mantissa) {
  int32_t count = 0;
  for (int32_t step = 8; step > 0; step /= 2) {
    if (mantissa >= kOctave32[static_cast<size_t>(2 * (count + step) - 1)]) count += step;
  }
  return count + (count == 15 && mantissa >= kOctave32[31]);
}

// Borders at or below each multiple of 2^17: neighbouring borders are further apart than that, so
// one comparison decides the rest.
constexpr std::array<uint8_t, 64> borders_below() {
  std::array<uint8_t, 64> below{};
  for (uint32_t i = 0; i < 64; ++i) {
    for (const uint32_t border : kBorder32) below[i] += border <= (0x800000 + (i << 17));
  }
  return below;
}
constexpr std::array<uint8_t, 64> kBordersBelow = borders_below();

// round(32·log2(mantissa / 2^23))
int32_t thirty_seconds(uint32_t mantissa) {
  const uint32_t below = kBordersBelow[mantissa >> 17 & 63];
  return static_cast<int32_t>(below + (below < 32 && mantissa >= kBorder32[below]));
}

// round(32·log2(x)) of a positive normal double.
int32_t log32(double x) {
  const uint64_t bits = std::bit_cast<uint64_t>(x);
  const uint32_t mantissa = static_cast<uint32_t>((bits & 0xfffffffffffff) >> 29) | 0x800000;
  return 32 * (static_cast<int32_t>(bits >> 52) - 1023) + thirty_seconds(mantissa);
}

}  // namespace

int32_t mean_scale(uint32_t exponent, uint64_t sum, int32_t m) {
  // The quotient has 16 to 52 bits.
  const Decomposed mean = decompose((sum << 28) / static_cast<uint64_t>(m));
  return 16 * (mean.exponent + 23 - 28 + static_cast<int32_t>(exponent) - 150) +
         sixteenths(mean.mantissa);
}

size_t level_bin(uint32_t key, int32_t scale) {
  if (key == 0) return 0;
  const Decomposed value = decompose_key(key);
  const int32_t position =
      32 * (value.exponent + 23) + thirty_seconds(value.mantissa) - 2 * scale;
  return static_cast<size_t>(std::clamp(position, -256, 255) + 256);
}

Levels best_levels(const LevelHistogram& histogram) {
  int64_t count = 0;
  double sum = 0;
  for (int32_t bin = 0; bin < 512; ++bin) {
    count += histogram[static_cast<size_t>(bin)];
    sum += static_cast<double>(histogram[static_cast<size_t>(bin)]) *
           static_cast<double>(power(bin - 256));
  }
  if (count == 0) return {};
  // The best split maximises the energy of the two means; the first of equal ones is taken.
  double best = -1;
  double low_mean = sum / static_cast<double>(count);
  double high_mean = low_mean;
  int64_t low_count = 0;
  double low_sum = 0;
  for (int32_t bin = 0; bin < 512; ++bin) {
    const int64_t here = histogram[static_cast<size_t>(bin)];
    if (here == 0) continue;
    low_count += here;
    low_sum += static_cast<double>(here) * static_cast<double>(power(bin - 256));
    const int64_t high_count = count - low_count;
    if (high_count == 0) break;
    const double high_sum = sum - low_sum;
    const double energy = low_sum * low_sum / static_cast<double>(low_count) +
                          high_sum * high_sum / static_cast<double>(high_count);
    if (energy > best) {
      best = energy;
      low_mean = low_sum / static_cast<double>(low_count);
      high_mean = high_sum / static_cast<double>(high_count);
    }
  }
  const int32_t low = std::clamp(log32(low_mean), kLevelBias - 255, kLevelBias);
  const int32_t high = std::clamp(log32(high_mean), -kLevelBias, 255 - kLevelBias);
  return {low, std::max(low, high)};
}

}  // namespace covenant::sparse
