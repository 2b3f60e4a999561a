// The logarithmic number system of the sparse format: values are ± fp32 nearest to 2^(z/32).
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace covenant::sparse {

// Chunk scales are 2^(L/16) with |top scale| within this bound, so that every value of the format
// is a normal fp32.
constexpr int32_t kTopScaleMax = 1600;
constexpr int32_t kScaleCodeMax = 255;
constexpr int32_t kNoScale = INT32_MIN;
// Level = code - bias for the high one, bias - code for the low one, in 1/32 octaves.
constexpr int32_t kLevelBias = 8;

// 24-bit mantissas of 2^(i/32). The odd entries are also the rounding borders between sixteenths of
// an octave.
inline constexpr std::array<uint32_t, 32> kOctave32 = {
    0x800000, 0x82cd87, 0x85aac3, 0x88980f, 0x8b95c2, 0x8ea43a, 0x91c3d3, 0x94f4f0,
    0x9837f0, 0x9b8d3a, 0x9ef532, 0xa27043, 0xa5fed7, 0xa9a15b, 0xad583f, 0xb123f6,
    0xb504f3, 0xb8fbaf, 0xbd08a4, 0xc12c4d, 0xc5672a, 0xc9b9be, 0xce248c, 0xd2a81e,
    0xd744fd, 0xdbfbb8, 0xe0ccdf, 0xe5b907, 0xeac0c7, 0xefe4ba, 0xf5257d, 0xfa83b3};

// fp32 nearest to 2^(z/32); z such that the result is normal.
inline float power(int32_t z) {
  const uint32_t exponent = static_cast<uint32_t>((z >> 5) + 127);
  return std::bit_cast<float>(exponent << 23 |
                              (kOctave32[static_cast<uint32_t>(z & 31)] & 0x7fffff));
}

// The two magnitudes of a chunk; equal in 1-bit mode.
struct Levels {
  int32_t low = 0;  // 1/32 octave, relative to the chunk scale
  int32_t high = 0;
};

// round(16·log2(mean of m values whose mantissas, cut to a biased exponent, have this sum)); the
// sum is below 2^36 and not zero.
int32_t mean_scale(uint32_t exponent, uint64_t sum, int32_t m);

// Counts of |v| / 2^(L/16) by position in 1/32 octave, -256 to 255 and everything beyond in the
// last bins.
constexpr size_t kLevelBins = 512;
using LevelHistogram = std::array<int64_t, kLevelBins>;

// The bin of one magnitude (fp32 bits without sign) of a chunk with scale L.
size_t level_bin(uint32_t key, int32_t scale);

// The two levels of least squared error for a histogram.
Levels best_levels(const LevelHistogram& histogram);

}  // namespace covenant::sparse
