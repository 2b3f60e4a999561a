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
