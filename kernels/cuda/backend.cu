// The table of functions that the library exports.
#include "device/backend.h"

#include <cstdio>
#include <new>

#include "codec/table.h"
#include "engine/generator_table.cuh"
#include "engine/table.cuh"
#include "hash/state_root.h"
#include "parallel/table.h"
#include "rng/initial.h"
#include "runtime/platform.h"
#include "sparse/compress.h"
#include "sparse/merge.h"

namespace covenant::cuda {
namespace {

Device& device_of(void* handle) {
  auto* const device = static_cast<Device*>(handle);
  device->activate();
  return *device;
}

cov_status count_devices(int32_t* count) {
  int found = 0;
  const cudaError_t error = cudaGetDeviceCount(&found);
  (void)cudaGetLastError();
  *count = 0;
  if (error == cudaErrorInsufficientDriver)
    return cov_error(COV_UNSUPPORTED, "there is no NVIDIA driver, or it is too old for this build");
  if (error == cudaErrorNoDevice || (error == cudaSuccess && found == 0))
    return cov_error(COV_UNSUPPORTED, "the NVIDIA driver sees no GPU");
  if (error != cudaSuccess)
    return cov_error(COV_UNSUPPORTED, "the NVIDIA driver says: %s", cudaGetErrorString(error));
  *count = found;
  return cov_ok();
}

cov_status describe(int32_t index, cov_device_info* info) {
  *info = {};
  cudaDeviceProp properties;
  size_t free = 0;
  size_t total = 0;
  int driver = 0;
  cudaError_t error = cudaGetDeviceProperties(&properties, index);
  if (error == cudaSuccess) error = cudaSetDevice(index);
  if (error == cudaSuccess) error = cudaMemGetInfo(&free, &total);
  if (error == cudaSuccess) error = cudaDriverGetVersion(&driver);
  if (error != cudaSuccess) {
    (void)cudaGetLastError();
    return cov_error(COV_UNSUPPORTED, "CUDA device %d: %s", index, cudaGetErrorString(error));
  }
  std::snprintf(info->name, sizeof info->name, "%.127s", properties.name);
  info->memory_bytes = total;
  info->free_bytes = free;
  info->compute_capability = 10 * properties.major + properties.minor;
  info->multiprocessors = properties.multiProcessorCount;
  info->driver_version = driver;
  return cov_ok();
}

cov_status open(int32_t index, uint64_t memory_limit_bytes, void** device) {
  return guard([&] { *device = new Device(index, memory_limit_bytes); });
}

void close(void* handle) { delete static_cast<Device*>(handle); }

cov_status allocate(void* handle, uint64_t bytes, void** pointer) {
  return guard([&] { *pointer = device_of(handle).allocate(bytes); });
}

void release(void* handle, void* pointer) {
  (void)guard([&] { device_of(handle).release(pointer); });
}

cov_status upload(void* handle, void* to, const void* from, uint64_t bytes) {
  return guard([&] {
    Device& device = device_of(handle);
    device.upload(to, from, bytes);
    device.finish();
  });
}

cov_status download(void* handle, void* to, const void* from, uint64_t bytes) {
  return guard([&] {
    Device& device = device_of(handle);
    device.download(to, from, bytes);
    device.finish();
  });
}

cov_status memory(void* handle, uint64_t* bytes, uint64_t* peak_bytes) {
  return guard([&] {
    const Device& device = device_of(handle);
    *bytes = device.bytes();
    *peak_bytes = device.peak_bytes();
  });
}

cov_status make_initial_parameters(void* handle, const cov_model_shape* shape, uint64_t seed,
                                   float* parameters, uint64_t length) {
  return guard([&] {
    Device& device = device_of(handle);
    initial_parameters(device, *shape, seed, parameters, length);
    device.finish();
  });
}

cov_status hash_state(void* handle, const float* parameters, uint64_t length,
                      const cov_tensor_info* tensors, int32_t tensor_count, uint8_t* root) {
  return guard(
      [&] { state_root(device_of(handle), parameters, length, tensors, tensor_count, root); });
}

cov_status compress_update(void* handle, const cov_sparse_source* source,
                           const cov_tensor_info* tensors, int32_t tensor_count,
                           cov_sparse_format format, uint8_t* body, uint64_t body_bytes) {
  return guard([&] {
    compress(device_of(handle), *source, tensors, tensor_count, format, body, body_bytes);
  });
}

cov_status merge_updates(void* handle, const cov_merge_input* input,
                         const cov_tensor_info* tensors, int32_t tensor_count,
                         cov_sparse_format format, cov_bytes* merged) {
  const cov_status status = guard([&] {
    sparse_merge(device_of(handle), *input, tensors, tensor_count, format, merged);
  });
  if (status.code != COV_OK) cov_bytes_free(merged);
  return status;
}

cov_status step_updates(void* handle, float* parameters, uint16_t* shadow, uint64_t length,
                        const cov_merge_input* input, const cov_tensor_info* tensors,
                        int32_t tensor_count, cov_sparse_format format, float rate,
                        int32_t* skipped, int32_t* skipped_count) {
  return guard([&] {
    sparse_step(device_of(handle), parameters, shadow, length, *input, tensors, tensor_count,
                format, rate, skipped, skipped_count);
  });
}

cov_status apply_merged(void* handle, float* parameters, uint64_t length, const uint8_t* merged,
                        uint64_t merged_bytes, const cov_tensor_info* tensors,
                        int32_t tensor_count, float rate, int32_t* skipped,
                        int32_t* skipped_count) {
  return guard([&] {
    merged_apply(device_of(handle), parameters, length, merged, merged_bytes, tensors,
                 tensor_count, rate, skipped, skipped_count);
  });
}

}  // namespace
}  // namespace covenant::cuda

extern "C" __attribute__((visibility("default"))) const covenant::device::Backend*
covenant_cuda_backend() {
  using namespace covenant::cuda;
  static const covenant::device::Backend table = {
      .version = covenant::device::kBackendVersion,
      .engine = &engine_table(),
      .generator = &generator_table(),
      .codec = &codec_table(),
      .parallel = &parallel_table(),
      .count = count_devices,
      .info = describe,
      .open = open,
      .close = close,
      .allocate = allocate,
      .release = release,
      .upload = upload,
      .download = download,
      .memory = memory,
      .initial_parameters = make_initial_parameters,
      .state_root = hash_state,
      .sparse_compress = compress_update,
      .sparse_merge = merge_updates,
      .sparse_step = step_updates,
      .merged_apply = apply_merged,
  };
  return &table;
}
