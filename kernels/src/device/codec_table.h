// The codecs' part of what the CUDA library offers (backend.h).
#pragma once

#include "covenant/device.h"

namespace covenant::device {

struct CodecTable {
  cov_status (*activation_encode)(void* device, int32_t kind, const float* values, int32_t rows,
                                  int32_t width, uint8_t* payload, uint64_t payload_bytes);
  cov_status (*activation_decode)(void* device, int32_t kind, const uint8_t* payload,
                                  uint64_t payload_bytes, int32_t rows, int32_t width,
                                  float* values);
  cov_status (*projection_encode)(void* device, const cov_projection* projection, const float* x,
                                  const int32_t* tokens, int32_t rows, float* z);
  cov_status (*projection_decode)(void* device, const cov_projection* projection, const float* z,
                                  const int32_t* tokens, int32_t rows, float* y);
  cov_status (*projection_decode_backward)(void* device, const cov_projection* projection,
                                           const float* d_y, const float* z, const int32_t* tokens,
                                           int32_t rows, float* d_z, float* d_basis,
                                           float* d_table);
  cov_status (*projection_encode_backward)(void* device, const cov_projection* projection,
                                           const float* d_z, const float* x, const int32_t* tokens,
                                           int32_t rows, float* d_x, float* d_basis,
                                           float* d_table);
  cov_status (*delta_root)(void* device, const uint16_t* weights, uint64_t count, uint8_t* root);
  cov_status (*delta_encode)(void* device, const uint16_t* base, const uint16_t* next,
                             uint64_t count, cov_bytes* delta);
  cov_status (*delta_apply)(void* device, const uint16_t* base, uint64_t count,
                            const uint8_t* delta, uint64_t delta_bytes, uint16_t* next);
};

}  // namespace covenant::device
