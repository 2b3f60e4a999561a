#include "codec/table.h"

#include "codec/activation.cuh"
#include "codec/delta.cuh"
#include "codec/projection.cuh"
#include "runtime/platform.h"

namespace covenant::cuda {
namespace {

Device& device_of(void* handle) {
  auto* const device = static_cast<Device*>(handle);
  device->activate();
  return *device;
}

cov_status encode_activation(void* handle, int32_t kind, const float* values, int32_t rows,
                             int32_t width, uint8_t* payload, uint64_t payload_bytes) {
  return guard([&] {
    activation_encode(device_of(handle), kind, values, rows, width, payload, payload_bytes);
  });
}

cov_status decode_activation(void* handle, int32_t kind, const uint8_t* payload,
                             uint64_t payload_bytes, int32_t rows, int32_t width, float* values) {
  return guard([&] {
    activation_decode(device_of(handle), kind, payload, payload_bytes, rows, width, values);
  });
}

cov_status encode_projection(void* handle, const cov_projection* projection, const float* x,
                             const int32_t* tokens, int32_t rows, float* z) {
  return guard([&] { projection_encode(device_of(handle), *projection, x, tokens, rows, z); });
}

cov_status decode_projection(void* handle, const cov_projection* projection, const float* z,
                             const int32_t* tokens, int32_t rows, float* y) {
  return guard([&] { projection_decode(device_of(handle), *projection, z, tokens, rows, y); });
}

cov_status decode_projection_backward(void* handle, const cov_projection* projection,
                                      const float* d_y, const float* z, const int32_t* tokens,
                                      int32_t rows, float* d_z, float* d_basis, float* d_table) {
  return guard([&] {
    projection_decode_backward(device_of(handle), *projection, d_y, z, tokens, rows, d_z, d_basis,
                               d_table);
  });
}

cov_status encode_projection_backward(void* handle, const cov_projection* projection,
                                      const float* d_z, const float* x, const int32_t* tokens,
                                      int32_t rows, float* d_x, float* d_basis, float* d_table) {
  return guard([&] {
    projection_encode_backward(device_of(handle), *projection, d_z, x, tokens, rows, d_x, d_basis,
                               d_table);
  });
}

cov_status root_of_weights(void* handle, const uint16_t* weights, uint64_t count, uint8_t* root) {
  return guard([&] { delta_root(device_of(handle), weights, count, root); });
}

cov_status encode_delta(void* handle, const uint16_t* base, const uint16_t* next, uint64_t count,
                        cov_bytes* delta) {
  return guard([&] { delta_encode(device_of(handle), base, next, count, delta); });
}

cov_status apply_delta(void* handle, const uint16_t* base, uint64_t count, const uint8_t* delta,
                       uint64_t delta_bytes, uint16_t* next) {
  return guard([&] { delta_apply(device_of(handle), base, count, delta, delta_bytes, next); });
}

}  // namespace

const device::CodecTable& codec_table() {
  static const device::CodecTable table = {
      .activation_encode = encode_activation,
      .activation_decode = decode_activation,
      .projection_encode = encode_projection,
      .projection_decode = decode_projection,
      .projection_decode_backward = decode_projection_backward,
      .projection_encode_backward = encode_projection_backward,
      .delta_root = root_of_weights,
      .delta_encode = encode_delta,
      .delta_apply = apply_delta,
  };
  return table;
}

}  // namespace covenant::cuda
