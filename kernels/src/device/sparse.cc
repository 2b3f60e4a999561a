// Twins of the update codec.
#include "covenant/device.h"
#include "device/backend.h"

using covenant::device::backend;

cov_status cov_device_sparse_compress(cov_device* device, const cov_sparse_source* source,
                                      const cov_tensor_info* tensors, int32_t tensor_count,
                                      cov_sparse_format format, uint8_t* body,
                                      uint64_t body_bytes) {
  return backend()->sparse_compress(device->handle, source, tensors, tensor_count, format, body,
                                    body_bytes);
}

cov_status cov_device_sparse_merge(cov_device* device, const cov_merge_input* input,
                                   const cov_tensor_info* tensors, int32_t tensor_count,
                                   cov_sparse_format format, cov_bytes* merged) {
  *merged = {nullptr, 0};
  return backend()->sparse_merge(device->handle, input, tensors, tensor_count, format, merged);
}

cov_status cov_device_sparse_step(cov_device* device, float* parameters, uint16_t* shadow,
                                  uint64_t length, const cov_merge_input* input,
                                  const cov_tensor_info* tensors, int32_t tensor_count,
                                  cov_sparse_format format, float rate, int32_t* skipped,
                                  int32_t* skipped_count) {
  return backend()->sparse_step(device->handle, parameters, shadow, length, input, tensors,
                                tensor_count, format, rate, skipped, skipped_count);
}

cov_status cov_device_merged_apply(cov_device* device, float* parameters, uint64_t length,
                                   const uint8_t* merged, uint64_t merged_bytes,
                                   const cov_tensor_info* tensors, int32_t tensor_count, float rate,
                                   int32_t* skipped, int32_t* skipped_count) {
  return backend()->merged_apply(device->handle, parameters, length, merged, merged_bytes, tensors,
                                 tensor_count, rate, skipped, skipped_count);
}
