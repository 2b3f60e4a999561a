// The fields of a chunk that keeps 64 of 4096 values, in 2-bit or 1-bit mode: the case that
// decoders meet all the time.
#pragma once

#include <cstdint>

namespace covenant::sparse {

// Indices from 48 bytes of low bits and 16 bytes of bitmap behind them. False when they break a
// rule of the format; `indices` is then undefined.
using DecodeFunction = bool (*)(const uint8_t* fields, uint16_t indices[64]);

bool decode64_portable(const uint8_t* fields, uint16_t indices[64]);
bool decode64_avx2(const uint8_t* fields, uint16_t indices[64]);
bool decode64_avx512vbmi(const uint8_t* fields, uint16_t indices[64]);

// How many of the 2-bit codes in these bytes say "high": their odd bits.
using CountHighFunction = int32_t (*)(const uint8_t* codes, int32_t bytes);

int32_t count_high_portable(const uint8_t* codes, int32_t bytes);
int32_t count_high_avx2(const uint8_t* codes, int32_t bytes);

}  // namespace covenant::sparse
