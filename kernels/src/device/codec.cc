// Twins of the codecs of activations and policy deltas.
#include "covenant/device.h"
#include "device/backend.h"
#include "device/codec_table.h"

using covenant::device::backend;

cov_status cov_device_activation_encode(cov_device* device, int32_t kind, const float* values,
                                        int32_t rows, int32_t width, uint8_t* payload,
                                        uint64_t payload_bytes) {
  return backend()->codec->activation_encode(device->handle, kind, values, rows, width, payload,
                                             payload_bytes);
}

cov_status cov_device_activation_decode(cov_device* device, int32_t kind, const uint8_t* payload,
                                        uint64_t payload_bytes, int32_t rows, int32_t width,
                                        float* values) {
  return backend()->codec->activation_decode(device->handle, kind, payload, payload_bytes, rows,
                                             width, values);
}

cov_status cov_device_projection_encode(cov_device* device, const cov_projection* projection,
                                        const float* x, const int32_t* tokens, int32_t rows,
                                        float* z) {
  return backend()->codec->projection_encode(device->handle, projection, x, tokens, rows, z);
}

cov_status cov_device_projection_decode(cov_device* device, const cov_projection* projection,
                                        const float* z, const int32_t* tokens, int32_t rows,
                                        float* y) {
  return backend()->codec->projection_decode(device->handle, projection, z, tokens, rows, y);
}

cov_status cov_device_projection_decode_backward(cov_device* device,
                                                 const cov_projection* projection,
                                                 const float* d_y, const float* z,
                                                 const int32_t* tokens, int32_t rows, float* d_z,
                                                 float* d_basis, float* d_table) {
  return backend()->codec->projection_decode_backward(device->handle, projection, d_y, z, tokens,
                                                      rows, d_z, d_basis, d_table);
}

cov_status cov_device_projection_encode_backward(cov_device* device,
                                                 const cov_projection* projection,
                                                 const float* d_z, const float* x,
                                                 const int32_t* tokens, int32_t rows, float* d_x,
                                                 float* d_basis, float* d_table) {
  return backend()->codec->projection_encode_backward(device->handle, projection, d_z, x, tokens,
                                                      rows, d_x, d_basis, d_table);
}

cov_status cov_device_delta_root(cov_device* device, const uint16_t* weights, uint64_t count,
                                 uint8_t root[COV_HASH_BYTES]) {
  return backend()->codec->delta_root(device->handle, weights, count, root);
}

cov_status cov_device_delta_encode(cov_device* device, const uint16_t* base, const uint16_t* next,
                                   uint64_t count, cov_bytes* delta) {
  *delta = {nullptr, 0};
  return backend()->codec->delta_encode(device->handle, base, next, count, delta);
}

cov_status cov_device_delta_apply(cov_device* device, const uint16_t* base, uint64_t count,
                                  const uint8_t* delta, uint64_t delta_bytes, uint16_t* next) {
  return backend()->codec->delta_apply(device->handle, base, count, delta, delta_bytes, next);
}
