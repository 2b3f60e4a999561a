// The logarithmic number system of the format on the device; twin of src/sparse/levels.
#pragma once

#include "runtime/platform.h"
#include "sparse/levels.h"

namespace covenant::cuda {

// 24-bit mantissas of 2^(i/32), and of the borders 2^((2i + 1)/64) between them.
__constant__ uint32_t kOctave[32] = {
    0x800000, 0x82cd87, 0x85aac3, 0x88980f, 0x8b95c2, 0x8ea43a, 0x91c3d3, 0x94f4f0,
    0x9837f0, 0x9b8d3a, 0x9ef532, 0xa27043, 0xa5fed7, 0xa9a15b, 0xad583f, 0xb123f6,
    0xb504f3, 0xb8fbaf, 0xbd08a4, 0xc12c4d, 0xc5672a, 0xc9b9be, 0xce248c, 0xd2a81e,
    0xd744fd, 0xdbfbb8, 0xe0ccdf, 0xe5b907, 0xeac0c7, 0xefe4ba, 0xf5257d, 0xfa83b3};
__constant__ uint32_t kBorder[32] = {
    0x8164d2, 0x843a29, 0x871f62, 0x8a14d5, 0x8d1adf, 0x9031dc, 0x935a2b, 0x96942d,
    0x99e046, 0x9d3eda, 0xa0b051, 0xa43516, 0xa7cd94, 0xab7a3a, 0xaf3b79, 0xb311c4,
    0xb6fd92, 0xbaff5b, 0xbf179a, 0xc346cd, 0xc78d75, 0xcbec15, 0xd06334, 0xd4f35b,
    0xd99d16, 0xde60f5, 0xe33f89, 0xe8396a, 0xed4f30, 0xf28177, 0xf7d0df, 0xfd3e0c};

// fp32 nearest to 2^(z/32); z such that the result is normal.
__device__ __forceinline__ float power(int32_t z) {
  return __uint_as_float(static_cast<uint32_t>((z >> 5) + 127) << 23 |
                         (kOctave[z & 31] & 0x7fffffu));
}

// round(16·log2(mantissa / 2^23)): the odd entries of kOctave are the borders.
__device__ __forceinline__ int32_t sixteenths(uint32_t mantissa) {
  int32_t count = 0;
#pragma unroll
  for (int i = 1; i < 32; i += 2) count += mantissa >= kOctave[i];
  return count;
}

// round(32·log2(mantissa / 2^23)): how many borders are at or below it.
__device__ __forceinline__ int32_t thirty_seconds(uint32_t mantissa, const uint32_t* border) {
  int32_t count = 0;
#pragma unroll
  for (int32_t step = 16; step > 0; step /= 2)
    count += border[count + step - 1] <= mantissa ? step : 0;
  return count + (count < 32 && border[count] <= mantissa ? 1 : 0);
}

// round(16·log2(mean)) of `kept` magnitudes whose mantissas, cut to `exponent` of the largest, sum
// to `sum` > 0.
__device__ __forceinline__ int32_t scale_of(uint64_t sum, int32_t exponent, int32_t kept) {
  const uint64_t mean = (sum << 28) / static_cast<uint64_t>(kept);
  const int32_t top = 63 - __clzll(static_cast<long long>(mean));
  const uint64_t mantissa = top >= 23 ? mean >> (top - 23) : mean << (23 - top);
  return 16 * (top - 28 + exponent - 150) + sixteenths(static_cast<uint32_t>(mantissa));
}

// The mantissa of a magnitude, cut to the exponent of the largest one.
__device__ __forceinline__ uint32_t cut_mantissa(uint32_t key, int32_t exponent) {
  const auto own = static_cast<int32_t>(key >> 23);
  const uint32_t mantissa = (key & 0x7fffffu) | (own > 0 ? 0x800000u : 0u);
  const int32_t shift = exponent - (own > 1 ? own : 1);
  return shift < 24 ? mantissa >> shift : 0u;
}

// Bin of the level histogram for a magnitude in a chunk of this scale.
__device__ __forceinline__ int32_t level_bin(uint32_t key, int32_t scale, const uint32_t* border) {
  if (key == 0) return 0;
  auto exponent = static_cast<int32_t>(key >> 23);
  uint32_t mantissa = (key & 0x7fffffu) | 0x800000u;
  if (exponent == 0) {  // subnormal
    const int32_t top = 31 - __clz(static_cast<int>(key));
    mantissa = key << (23 - top);
    exponent = top - 22;
  }
  const int32_t position = 32 * (exponent - 127) + thirty_seconds(mantissa, border) - 2 * scale;
  return min(max(position, -256), 255) + 256;
}

// round(32·log2(x)) of a positive normal double.
__device__ __forceinline__ int32_t log32(double x, const uint32_t* border) {
  const auto bits = static_cast<uint64_t>(__double_as_longlong(x));
  const uint32_t mantissa = static_cast<uint32_t>((bits & 0xfffffffffffffull) >> 29) | 0x800000u;
  return 32 * (static_cast<int32_t>(bits >> 52) - 1023) + thirty_seconds(mantissa, border);
}

}  // namespace covenant::cuda
