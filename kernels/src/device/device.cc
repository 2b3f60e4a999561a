// Opening a device, and its memory.
#include <new>

#include "covenant/device.h"
#include "device/backend.h"

using covenant::device::backend;
using covenant::device::unavailable;

cov_status cov_device_open(int32_t index, uint64_t memory_limit_bytes, cov_device** device) {
  if (device == nullptr) return cov_error(COV_INVALID_ARGUMENT, "device is null");
  *device = nullptr;
  if (backend() == nullptr) return unavailable();
  if (index < 0 || index >= cov_device_count()) {
    return cov_error(COV_OUT_OF_RANGE, "there is no CUDA device %d; there are %d", index,
                     cov_device_count());
  }
  auto* const opened = new (std::nothrow) cov_device{nullptr};
  if (opened == nullptr) return cov_error(COV_OUT_OF_MEMORY, "no memory for a device");
  const cov_status status = backend()->open(index, memory_limit_bytes, &opened->handle);
  if (status.code != COV_OK)
    delete opened;
  else
    *device = opened;
  return status;
}

void cov_device_close(cov_device* device) {
  if (device == nullptr) return;
  backend()->close(device->handle);
  delete device;
}

cov_status cov_device_allocate(cov_device* device, uint64_t bytes, void** pointer) {
  *pointer = nullptr;
  return backend()->allocate(device->handle, bytes, pointer);
}

void cov_device_free(cov_device* device, void* pointer) {
  backend()->release(device->handle, pointer);
}

cov_status cov_device_upload(cov_device* device, void* to, const void* from, uint64_t bytes) {
  return backend()->upload(device->handle, to, from, bytes);
}

cov_status cov_device_download(cov_device* device, void* to, const void* from, uint64_t bytes) {
  return backend()->download(device->handle, to, from, bytes);
}

cov_status cov_device_memory(cov_device* device, uint64_t* bytes, uint64_t* peak_bytes) {
  return backend()->memory(device->handle, bytes, peak_bytes);
}
