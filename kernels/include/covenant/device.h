// CUDA devices: what there is, their memory, and the twins of the calls that work on it.
//
// The CUDA code lives in a library of its own (libcovenant_cuda.so) that is loaded at the first call
// of this header: from the path in COVENANT_CUDA_LIBRARY, else from beside the file this code is in.
// Without it, without a driver or without a GPU there are 0 devices, and cov_device_report says why.
//
// Tier A where the CPU call is tier A: a twin gives the bits that the CPU gives.
//
// Errors: those of the CPU calls, COV_UNSUPPORTED where CUDA is not available, COV_MEMORY_LIMIT and
// COV_OUT_OF_MEMORY for the device's memory, COV_INTERNAL with CUDA's words when the device fails.
#ifndef COVENANT_DEVICE_H
#define COVENANT_DEVICE_H

#include <stdint.h>

#include "covenant/activation.h"
#include "covenant/delta.h"
#include "covenant/hash.h"
#include "covenant/sparse.h"
#include "covenant/status.h"
#include "covenant/tensors.h"

#ifdef __cplusplus
extern "C" {
#endif

// Number of CUDA devices that can be used; 0 when CUDA is not available.
int32_t cov_device_count(void);

// One sentence: which devices there are, or why there are none. Valid for the life of the process.
const char* cov_device_report(void);

typedef struct cov_device_info {
  char name[128];
  uint64_t memory_bytes;
  uint64_t free_bytes;
  int32_t compute_capability;  // 10 * major + minor, e.g. 90
  int32_t multiprocessors;
  int32_t driver_version;  // newest CUDA that the driver runs: 1000 * major + 10 * minor, e.g. 13000
} cov_device_info;

// COV_OUT_OF_RANGE when there is no device `index`; COV_UNSUPPORTED when CUDA is not available.
cov_status cov_device_info_at(int32_t index, cov_device_info* info);

// One use of a device: a stream, scratch memory and a count of what is allocated. Calls on one
// cov_device must not overlap; several may be open, on one device or on several.
typedef struct cov_device cov_device;

// memory_limit_bytes 0: no limit but the device's own memory.
cov_status cov_device_open(int32_t index, uint64_t memory_limit_bytes, cov_device** device);
// Frees everything allocated through it; a null device is ignored.
void cov_device_close(cov_device* device);

// Device memory, aligned to 256 bytes, contents undefined. COV_MEMORY_LIMIT or COV_OUT_OF_MEMORY.
cov_status cov_device_allocate(cov_device* device, uint64_t bytes, void** pointer);
void cov_device_free(cov_device* device, void* pointer);
// Each returns when the copy is done.
cov_status cov_device_upload(cov_device* device, void* to, const void* from, uint64_t bytes);
cov_status cov_device_download(cov_device* device, void* to, const void* from, uint64_t bytes);
// Scratch memory included.
cov_status cov_device_memory(cov_device* device, uint64_t* bytes, uint64_t* peak_bytes);

// ---- Twins ---------------------------------------------------------------------------------
//
// As the CPU calls of the same name, with the parameters in memory of the device. Each returns when
// its results are there.

// cov_initial_parameters
cov_status cov_device_initial_parameters(cov_device* device, const cov_model_shape* shape,
                                         uint64_t seed, float* parameters, uint64_t length);

// cov_state_root
cov_status cov_device_state_root(cov_device* device, const float* parameters, uint64_t length,
                                 const cov_tensor_info* tensors, int32_t tensor_count,
                                 uint8_t root[COV_HASH_BYTES]);

// cov_sparse_compress: the three buffers of `source` are on the device, `body` is on the host.
cov_status cov_device_sparse_compress(cov_device* device, const cov_sparse_source* source,
                                      const cov_tensor_info* tensors, int32_t tensor_count,
                                      cov_sparse_format format, uint8_t* body,
                                      uint64_t body_bytes);

// cov_sparse_merge: updates and result are on the host.
cov_status cov_device_sparse_merge(cov_device* device, const cov_merge_input* input,
                                   const cov_tensor_info* tensors, int32_t tensor_count,
                                   cov_sparse_format format, cov_bytes* merged);

// cov_sparse_merge followed by cov_merged_apply, without the merged update in between: updates on
// the host, parameters on the device. `shadow`, unless null, is bf16 of the new parameters at the
// same places, on the device; values outside the tensors stay as they are.
cov_status cov_device_sparse_step(cov_device* device, float* parameters, uint16_t* shadow,
                                  uint64_t length, const cov_merge_input* input,
                                  const cov_tensor_info* tensors, int32_t tensor_count,
                                  cov_sparse_format format, float rate, int32_t* skipped,
                                  int32_t* skipped_count);

// cov_merged_apply: the merged update is on the host, the parameters are on the device.
cov_status cov_device_merged_apply(cov_device* device, float* parameters, uint64_t length,
                                   const uint8_t* merged, uint64_t merged_bytes,
                                   const cov_tensor_info* tensors, int32_t tensor_count, float rate,
                                   int32_t* skipped, int32_t* skipped_count);

// cov_activation_encode, cov_activation_decode: values on the device, payload on the host. After an
// error the payload or the values are undefined.
cov_status cov_device_activation_encode(cov_device* device, int32_t kind, const float* values,
                                        int32_t rows, int32_t width, uint8_t* payload,
                                        uint64_t payload_bytes);
cov_status cov_device_activation_decode(cov_device* device, int32_t kind, const uint8_t* payload,
                                        uint64_t payload_bytes, int32_t rows, int32_t width,
                                        float* values);

// cov_projection_encode and its family: tokens and the struct itself are on the host, all the rest
// is on the device. A step of the basis is the CPU's cov_projection_step.
cov_status cov_device_projection_encode(cov_device* device, const cov_projection* projection,
                                        const float* x, const int32_t* tokens, int32_t rows,
                                        float* z);
cov_status cov_device_projection_decode(cov_device* device, const cov_projection* projection,
                                        const float* z, const int32_t* tokens, int32_t rows,
                                        float* y);
cov_status cov_device_projection_decode_backward(cov_device* device,
                                                 const cov_projection* projection,
                                                 const float* d_y, const float* z,
                                                 const int32_t* tokens, int32_t rows, float* d_z,
                                                 float* d_basis, float* d_table);
cov_status cov_device_projection_encode_backward(cov_device* device,
                                                 const cov_projection* projection,
                                                 const float* d_z, const float* x,
                                                 const int32_t* tokens, int32_t rows, float* d_x,
                                                 float* d_basis, float* d_table);

// cov_delta_root, cov_delta_encode, cov_delta_apply: weights on the device, delta and root on the
// host. One warp codes a chunk, so the device is busy from about a thousand chunks on (1e9 weights).
cov_status cov_device_delta_root(cov_device* device, const uint16_t* weights, uint64_t count,
                                 uint8_t root[COV_HASH_BYTES]);
cov_status cov_device_delta_encode(cov_device* device, const uint16_t* base, const uint16_t* next,
                                   uint64_t count, cov_bytes* delta);
cov_status cov_device_delta_apply(cov_device* device, const uint16_t* base, uint64_t count,
                                  const uint8_t* delta, uint64_t delta_bytes, uint16_t* next);

#ifdef __cplusplus
}
#endif
#endif
