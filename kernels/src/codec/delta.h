// Policy deltas: the code of one chunk, and what all devices do alike (covenant/delta.h).
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "covenant/delta.h"

namespace covenant::codec {

constexpr uint32_t kDeltaRaw = 1u << 31;  // in the table: the code is the weights as they are

inline uint64_t delta_chunks(uint64_t count) {
  return (count + COV_DELTA_CHUNK - 1) / COV_DELTA_CHUNK;
}
inline uint64_t delta_chunk_weights(uint64_t count, uint64_t chunk) {
  return std::min<uint64_t>(COV_DELTA_CHUNK, count - chunk * COV_DELTA_CHUNK);
}

cov_status check_delta_weights(const void* weights, uint64_t count);

// What a delta is made of: codes and entries of the table by chunk.
struct DeltaParts {
  std::vector<std::vector<uint8_t>> codes;
  std::vector<uint32_t> entries;
  uint64_t changed = 0;
  uint8_t base_root[COV_HASH_BYTES];
  uint8_t result_root[COV_HASH_BYTES];
};
// May throw std::bad_alloc.
void join_delta(uint64_t count, const DeltaParts& parts, cov_bytes* delta);

// Refuses what can be refused without the weights; starts[c]: where the code of chunk c begins.
cov_status check_delta(uint64_t count, const uint8_t* delta, uint64_t delta_bytes,
                       cov_delta_info* info, std::vector<uint64_t>* starts);
uint32_t delta_entry(const uint8_t* delta, uint64_t chunk);

cov_status refuse_delta_base();
cov_status refuse_delta_chunk(uint64_t chunk);
cov_status refuse_delta_result();

// Appends the code that leads from base to next; returns the number of weights that differ. May
// throw std::bad_alloc.
uint64_t encode_delta_chunk(const uint16_t* base, const uint16_t* next, uint64_t count,
                            std::vector<uint8_t>& out);

// False when the bytes are no code of that many weights. next may be base.
bool decode_delta_chunk(const uint8_t* code, uint64_t bytes, const uint16_t* base, uint64_t count,
                        uint16_t* next, uint64_t* changed);

}  // namespace covenant::codec
