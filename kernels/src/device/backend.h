// What the CUDA library offers to the rest: one table of functions, found by one exported symbol.
// Both sides are built from the same sources; the version guards against a library left behind by
// another build.
#pragma once

#include <cstdint>

#include "covenant/device.h"

namespace covenant::device {

// Counts up with every change of the tables below.
constexpr uint32_t kBackendVersion = 17;
constexpr const char* kBackendSymbol = "covenant_cuda_backend";

struct CodecTable;      // codec_table.h
struct EngineTable;     // engine_table.h
struct GeneratorTable;  // generator_table.h
struct ParallelTable;   // parallel_table.h

struct Backend {
  uint32_t version;
  const EngineTable* engine;
  const GeneratorTable* generator;
  const CodecTable* codec;
  const ParallelTable* parallel;

  // The number of devices, or a status whose message is the sentence of cov_device_report.
  cov_status (*count)(int32_t* count);
  cov_status (*info)(int32_t index, cov_device_info* info);
  cov_status (*open)(int32_t index, uint64_t memory_limit_bytes, void** device);
  void (*close)(void* device);
  cov_status (*allocate)(void* device, uint64_t bytes, void** pointer);
  void (*release)(void* device, void* pointer);
  cov_status (*upload)(void* device, void* to, const void* from, uint64_t bytes);
  cov_status (*download)(void* device, void* to, const void* from, uint64_t bytes);
  cov_status (*memory)(void* device, uint64_t* bytes, uint64_t* peak_bytes);
  cov_status (*initial_parameters)(void* device, const cov_model_shape* shape, uint64_t seed,
                                   float* parameters, uint64_t length);
  cov_status (*state_root)(void* device, const float* parameters, uint64_t length,
                           const cov_tensor_info* tensors, int32_t tensor_count, uint8_t* root);
  cov_status (*sparse_compress)(void* device, const cov_sparse_source* source,
                                const cov_tensor_info* tensors, int32_t tensor_count,
                                cov_sparse_format format, uint8_t* body, uint64_t body_bytes);
  cov_status (*sparse_merge)(void* device, const cov_merge_input* input,
                             const cov_tensor_info* tensors, int32_t tensor_count,
                             cov_sparse_format format, cov_bytes* merged);
  cov_status (*sparse_step)(void* device, float* parameters, uint16_t* shadow, uint64_t length,
                            const cov_merge_input* input, const cov_tensor_info* tensors,
                            int32_t tensor_count, cov_sparse_format format, float rate,
                            int32_t* skipped, int32_t* skipped_count);
  cov_status (*merged_apply)(void* device, float* parameters, uint64_t length,
                             const uint8_t* merged, uint64_t merged_bytes,
                             const cov_tensor_info* tensors, int32_t tensor_count, float rate,
                             int32_t* skipped, int32_t* skipped_count);
};

using BackendFunction = const Backend* (*)();

// The loaded backend, or null when CUDA is not available; the sentence of cov_device_report says why.
const Backend* backend();

// COV_UNSUPPORTED with that sentence.
cov_status unavailable();

}  // namespace covenant::device

// An open device: the backend's own object behind it.
struct cov_device {
  void* handle;
};
