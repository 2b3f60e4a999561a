// Counter-based random numbers (Philox4x32-10, Salmon et al. 2011), equal in TypeScript, C++ and
// CUDA. Tier A: the same bits on every machine. Nothing here can fail, and nothing is kept between
// calls.
#ifndef COVENANT_RNG_H
#define COVENANT_RNG_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// One block of Philox4x32-10: out[0..4) from a 64-bit key and a 128-bit counter.
void cov_philox4x32(const uint32_t key[2], const uint32_t counter[4], uint32_t out[4]);

// Uniform in (0, 1) for draw `index` of a 32-byte seed:
//   key = seed[0..8) as two little-endian u32; counter = (index, 0, LE(seed[8..12)),
//   LE(seed[12..16))); result = (x0 + 0.5) * 2^-32, exact in a double.
double cov_uniform_at(const uint8_t seed[32], uint32_t index);

// Sign (+1 or -1) of pseudo-random vector `dim` at hidden position `index`, used by fingerprints:
//   key as above; counter = (index / 128, 1 + dim, LE(seed[8..12)), LE(seed[12..16)));
//   bit = (x[(index % 128) / 32] >> (index % 32)) & 1; 1 means +1, 0 means -1.
// counter[1] is never 0, so signs and uniforms of one seed never share a block.
int cov_fingerprint_sign(const uint8_t seed[32], uint32_t dim, uint32_t index);

#ifdef __cplusplus
}
#endif
#endif
