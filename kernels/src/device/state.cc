// Twins that make and hash parameters.
#include "covenant/device.h"
#include "device/backend.h"

using covenant::device::backend;

cov_status cov_device_initial_parameters(cov_device* device, const cov_model_shape* shape,
                                         uint64_t seed, float* parameters, uint64_t length) {
  if (const cov_status status = cov_shape_check(shape); status.code != COV_OK) return status;
  return backend()->initial_parameters(device->handle, shape, seed, parameters, length);
}

cov_status cov_device_state_root(cov_device* device, const float* parameters, uint64_t length,
                                 const cov_tensor_info* tensors, int32_t tensor_count,
                                 uint8_t root[COV_HASH_BYTES]) {
  return backend()->state_root(device->handle, parameters, length, tensors, tensor_count, root);
}
