// Philox4x32-10: ten rounds of two 32x32 -> 64 bit products and a Weyl key schedule.
#include "covenant/rng.h"

namespace {

constexpr uint32_t kMultiplier0 = 0xD2511F53u;
constexpr uint32_t kMultiplier1 = 0xCD9E8D57u;
constexpr uint32_t kWeyl0 = 0x9E3779B9u;
constexpr uint32_t kWeyl1 = 0xBB67AE85u;

uint32_t load_le(const uint8_t* bytes) {
  return static_cast<uint32_t>(bytes[0]) | static_cast<uint32_t>(bytes[1]) << 8 |
         static_cast<uint32_t>(bytes[2]) << 16 | static_cast<uint32_t>(bytes[3]) << 24;
}

void seeded_block(const uint8_t seed[32], uint32_t c0, uint32_t c1, uint32_t out[4]) {
  const uint32_t key[2] = {load_le(seed), load_le(seed + 4)};
  const uint32_t counter[4] = {c0, c1, load_le(seed + 8), load_le(seed + 12)};
  cov_philox4x32(key, counter, out);
}

}  // namespace

extern "C" void cov_philox4x32(const uint32_t key[2], const uint32_t counter[4], uint32_t out[4]) {
  uint32_t k0 = key[0], k1 = key[1];
  uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = static_cast<uint64_t>(kMultiplier0) * c0;
    const uint64_t p1 = static_cast<uint64_t>(kMultiplier1) * c2;
    c0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
    c2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c1 = static_cast<uint32_t>(p1);
    c3 = static_cast<uint32_t>(p0);
    k0 += kWeyl0;
    k1 += kWeyl1;
  }
  out[0] = c0;
  out[1] = c1;
  out[2] = c2;
  out[3] = c3;
}

extern "C" double cov_uniform_at(const uint8_t seed[32], uint32_t index) {
  uint32_t x[4];
  seeded_block(seed, index, 0, x);
  return (static_cast<double>(x[0]) + 0.5) * (1.0 / 4294967296.0);
}

extern "C" int cov_fingerprint_sign(const uint8_t seed[32], uint32_t dim, uint32_t index) {
  uint32_t x[4];
  seeded_block(seed, index / 128, 1 + dim, x);
  return (x[(index % 128) / 32] >> (index % 32)) & 1u ? 1 : -1;
}
