// What the activation codecs of all devices agree on (covenant/activation.h).
#pragma once

#include <cstdint>

#include "covenant/activation.h"

namespace covenant::codec {

constexpr int32_t kActivationBlock = 64;
// A block whose largest magnitude is above this has no scale in bf16.
constexpr float kActivationMax = 3.38e38f;

uint64_t activation_row_bytes(int32_t kind, int32_t width);

// Checks the arguments of an encoder and writes the header.
cov_status begin_activation(int32_t kind, int32_t rows, int32_t width, uint8_t* payload,
                            uint64_t payload_bytes);
// Checks size and header of a payload.
cov_status check_activation(int32_t kind, int32_t rows, int32_t width, const uint8_t* payload,
                            uint64_t payload_bytes);

// The largest scale, in bf16, of codes up to `most`: what the largest block gives.
uint32_t activation_scale_max(int32_t most);

cov_status activation_not_finite();
cov_status activation_out_of_range();

}  // namespace covenant::codec
