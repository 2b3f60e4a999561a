// What the activation codecs of all devices agree on (covenant/activation.h).
#pragma once

#include <cstdint>

#include "covenant/activation.h"

namespace covenant::codec {

constexpr int32_t kActivationBlock = 64;
// The largest magnitude of a block. int8: above it there is no scale in bf16. int4: rotated; above it
// the sums of 64 codes that rotate back might not be finite, scale rounded up included.
constexpr float activation_max(int32_t kind) {
  return kind == COV_ACTIVATION_INT4 ? 0x1p121f : 3.38e38f;
}

uint64_t activation_row_bytes(int32_t kind, int32_t width);

// Checks the arguments of an encoder and writes the header.
cov_status begin_activation(int32_t kind, int32_t rows, int32_t width, uint8_t* payload,
                            uint64_t payload_bytes);
// Checks size and header of a payload.
cov_status check_activation(int32_t kind, int32_t rows, int32_t width, const uint8_t* payload,
                            uint64_t payload_bytes);

// The largest scale of int8 or int4, in bf16: what the largest block gives.
uint32_t activation_scale_max(int32_t kind);

cov_status activation_not_finite();
cov_status activation_out_of_range();

}  // namespace covenant::codec
