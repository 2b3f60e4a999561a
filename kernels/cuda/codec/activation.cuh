// Activation codecs on the device. Tier A: the bytes and values of cov_activation_encode and
// cov_activation_decode.
#pragma once

#include "codec/activation.h"
#include "runtime/device.h"

namespace covenant::cuda {

// What a launch works on; all pointers are device memory. `body` is the payload behind its header,
// aligned to 16 bytes.
struct ActivationWork {
  int32_t kind;
  int32_t rows;
  int32_t width;
  uint32_t* fault;  // set to 1 by what an encoder or decoder refuses
};

void launch_activation_encode(Stream stream, const ActivationWork& work, const float* values,
                              uint8_t* body);
void launch_activation_decode(Stream stream, const ActivationWork& work, const uint8_t* body,
                              float* values);

// The whole calls; values are on the device, the payload is on the host.
void activation_encode(Device& device, int32_t kind, const float* values, int32_t rows,
                       int32_t width, uint8_t* payload, uint64_t payload_bytes);
void activation_decode(Device& device, int32_t kind, const uint8_t* payload,
                       uint64_t payload_bytes, int32_t rows, int32_t width, float* values);

}  // namespace covenant::cuda
