// Philox4x32-10 on the device; the bits of cov_philox4x32 and of what rng.h builds on it.
#pragma once

#include <cstdint>

#include "runtime/platform.h"

namespace covenant::cuda {

__device__ __forceinline__ uint4 philox4x32(uint2 key, uint4 counter) {
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const uint32_t high0 = __umulhi(0xD2511F53u, counter.x);
    const uint32_t low0 = 0xD2511F53u * counter.x;
    const uint32_t high1 = __umulhi(0xCD9E8D57u, counter.z);
    const uint32_t low1 = 0xCD9E8D57u * counter.z;
    counter = make_uint4(high1 ^ counter.y ^ key.x, low1, high0 ^ counter.w ^ key.y, low0);
    key.x += 0x9E3779B9u;
    key.y += 0xBB67AE85u;
  }
  return counter;
}

// A 32-byte seed as the device takes it: little-endian words 0 to 3.
struct Seed {
  uint32_t words[4];
};

inline Seed seed_of(const uint8_t bytes[32]) {
  Seed seed;
  for (int i = 0; i < 4; ++i) {
    const uint8_t* const at = bytes + 4 * i;
    seed.words[i] = static_cast<uint32_t>(at[0]) | static_cast<uint32_t>(at[1]) << 8 |
                    static_cast<uint32_t>(at[2]) << 16 | static_cast<uint32_t>(at[3]) << 24;
  }
  return seed;
}

__device__ __forceinline__ uint4 seeded_block(const Seed& seed, uint32_t c0, uint32_t c1) {
  return philox4x32(make_uint2(seed.words[0], seed.words[1]),
                    make_uint4(c0, c1, seed.words[2], seed.words[3]));
}

// cov_uniform_at
__device__ __forceinline__ double uniform_at(const Seed& seed, uint32_t index) {
  const uint32_t x = seeded_block(seed, index, 0).x;
  return __dmul_rn(__dadd_rn(static_cast<double>(x), 0.5), 1.0 / 4294967296.0);
}

// cov_fingerprint_sign, as 1 or -1
__device__ __forceinline__ int fingerprint_sign(const Seed& seed, uint32_t dim, uint32_t index) {
  const uint4 block = seeded_block(seed, index / 128, 1 + dim);
  const uint32_t place = index % 128 / 32;
  const uint32_t word = place == 0 ? block.x : place == 1 ? block.y : place == 2 ? block.z : block.w;
  return (word >> (index % 32)) & 1u ? 1 : -1;
}

}  // namespace covenant::cuda
