// The code of one chunk of a policy delta.
#pragma once

#include <cstdint>
#include <vector>

namespace covenant::codec {

// Appends the code that leads from base to next; returns the number of weights that differ. May
// throw std::bad_alloc.
uint64_t encode_delta_chunk(const uint16_t* base, const uint16_t* next, uint64_t count,
                            std::vector<uint8_t>& out);

// False when the bytes are no code of that many weights. next may be base.
bool decode_delta_chunk(const uint8_t* code, uint64_t bytes, const uint16_t* base, uint64_t count,
                        uint16_t* next, uint64_t* changed);

}  // namespace covenant::codec
