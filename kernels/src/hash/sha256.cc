#include "hash/sha256.h"

#include <bit>
#include <cstring>

#include "covenant/hash.h"
#include "hash/round_constants.h"

namespace covenant::hash {

const uint32_t kRoundConstants[64] = {COVENANT_SHA256_ROUND_CONSTANTS};

namespace {

uint32_t load_big_endian(const uint8_t* at) {
  return static_cast<uint32_t>(at[0]) << 24 | static_cast<uint32_t>(at[1]) << 16 |
         static_cast<uint32_t>(at[2]) << 8 | at[3];
}

void store_big_endian(uint8_t* at, uint32_t value) {
  for (int i = 0; i < 4; ++i) at[i] = static_cast<uint8_t>(value >> (24 - 8 * i));
}

BlockFunction best_blocks() {
#if defined(__x86_64__)
  if (sha256_has_instructions()) return sha256_blocks_shani;
#endif
  return sha256_blocks_portable;
}

}  // namespace

void sha256_blocks_portable(uint32_t state[8], const uint8_t* data, size_t blocks) {
  for (; blocks > 0; --blocks, data += 64) {
    uint32_t w[64];
    for (int t = 0; t < 16; ++t) w[t] = load_big_endian(data + 4 * t);
    for (int t = 16; t < 64; ++t) {
      const uint32_t s0 = std::rotr(w[t - 15], 7) ^ std::rotr(w[t - 15], 18) ^ (w[t - 15] >> 3);
      const uint32_t s1 = std::rotr(w[t - 2], 17) ^ std::rotr(w[t - 2], 19) ^ (w[t - 2] >> 10);
      w[t] = w[t - 16] + s0 + w[t - 7] + s1;
    }
    uint32_t v[8];
    std::memcpy(v, state, sizeof v);
    for (int t = 0; t < 64; ++t) {
      const uint32_t s1 = std::rotr(v[4], 6) ^ std::rotr(v[4], 11) ^ std::rotr(v[4], 25);
      const uint32_t choice = (v[4] & v[5]) ^ (~v[4] & v[6]);
      const uint32_t first = v[7] + s1 + choice + kRoundConstants[t] + w[t];
      const uint32_t s0 = std::rotr(v[0], 2) ^ std::rotr(v[0], 13) ^ std::rotr(v[0], 22);
      const uint32_t majority = (v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]);
      std::memmove(v + 1, v, 7 * sizeof v[0]);
      v[4] += first;
      v[0] = first + s0 + majority;
    }
    for (int i = 0; i < 8; ++i) state[i] += v[i];
  }
}

Sha256::Sha256(BlockFunction blocks)
    : blocks_(blocks), state_{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                              0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19} {}

Sha256::Sha256() : Sha256(best_blocks()) {}

void Sha256::update(const void* data, size_t length) {
  const auto* at = static_cast<const uint8_t*>(data);
  const size_t held = length_ % 64;
  length_ += length;
  if (length == 0) return;
  if (held > 0) {
    const size_t room = 64 - held;
    if (length < room) {
      std::memcpy(buffer_ + held, at, length);
      return;
    }
    std::memcpy(buffer_ + held, at, room);
    blocks_(state_, buffer_, 1);
    at += room;
    length -= room;
  }
  blocks_(state_, at, length / 64);
  std::memcpy(buffer_, at + length / 64 * 64, length % 64);
}

size_t Sha256::update_pair(Sha256& first, const void* first_data, Sha256& second,
                           const void* second_data, size_t length) {
#if defined(__x86_64__)
  if (first.blocks_ == sha256_blocks_shani && first.length_ % 64 == 0 && second.length_ % 64 == 0) {
    const size_t whole = length / 64 * 64;
    sha256_pair_shani(first.state_, static_cast<const uint8_t*>(first_data), second.state_,
                      static_cast<const uint8_t*>(second_data), whole / 64);
    first.length_ += whole;
    second.length_ += whole;
    return whole;
  }
#endif
  (void)first, (void)first_data, (void)second, (void)second_data, (void)length;
  return 0;
}

void Sha256::finish(uint8_t digest[32]) {
  const uint64_t bits = length_ * 8;
  const uint8_t one = 0x80;
  const uint8_t zeros[64] = {};
  update(&one, 1);
  const size_t held = length_ % 64;
  update(zeros, held <= 56 ? 56 - held : 120 - held);
  uint8_t tail[8];
  store_big_endian(tail, static_cast<uint32_t>(bits >> 32));
  store_big_endian(tail + 4, static_cast<uint32_t>(bits));
  update(tail, 8);
  for (int i = 0; i < 8; ++i) store_big_endian(digest + 4 * i, state_[i]);
}

}  // namespace covenant::hash

void cov_sha256(const void* data, uint64_t length, uint8_t digest[COV_HASH_BYTES]) {
  covenant::hash::Sha256 hash;
  hash.update(data, length);
  hash.finish(digest);
}
