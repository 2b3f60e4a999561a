// Rows of activation payloads: the functions of the CPU path in use (cov_cpu_path).
#pragma once

#include <cstdint>

namespace covenant::codec {

// False when a value is not finite, or too large for the codec.
using EncodeRow = bool (*)(int32_t kind, const float* values, int32_t width, uint8_t* out);
// False for a scale or code that no encoder writes.
using DecodeRow = bool (*)(int32_t kind, const uint8_t* in, int32_t width, float* values);

struct ActivationRows {
  EncodeRow encode;
  DecodeRow decode;
};

bool encode_row_portable(int32_t kind, const float* values, int32_t width, uint8_t* out);
bool decode_row_portable(int32_t kind, const uint8_t* in, int32_t width, float* values);
bool encode_row_avx2(int32_t kind, const float* values, int32_t width, uint8_t* out);
bool decode_row_avx2(int32_t kind, const uint8_t* in, int32_t width, float* values);

ActivationRows activation_rows();

}  // namespace covenant::codec
