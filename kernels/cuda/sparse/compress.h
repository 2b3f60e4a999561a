// Compressing an update on the device. Tier A: the bits of cov_sparse_compress.
#pragma once

#include "sparse/levels.h"
#include "sparse/plan.h"

namespace covenant::cuda {

// What the passes of compress share; device memory.
struct CompressWork {
  const float* base;
  const float* current;
  float* error_feedback;
  float error_decay;
  // What is wrong, as tensor · 2^32 + code, or all ones; later passes then do nothing.
  unsigned long long* fault;
  int32_t* scales;         // per chunk, biased
  int32_t* top_scales;     // per tensor, biased
  sparse::Levels* levels;  // per tensor
  uint16_t* indices;       // kept values, as in HostPlan
  float* values;
  uint8_t* body;
};

// Pass 1, over a few chunks of each tensor: error feedback, the largest of each chunk, its scale.
void launch_sample(Stream stream, const SparsePlan& plan, const CompressWork& work);
// Pass 2, over what pass 1 kept: the levels of each tensor.
void launch_levels(Stream stream, const SparsePlan& plan, const CompressWork& work);
// Pass 3, the one over all memory: as pass 1 for the other chunks, and the bytes of all chunks.
void launch_write(Stream stream, const SparsePlan& plan, const CompressWork& work);
// Pass 4: tensor headers and scale codes; chunks too far below the largest take back what they
// wrote.
void launch_finish(Stream stream, const SparsePlan& plan, const CompressWork& work);

// All passes, with work memory from scratch. `source` points to device memory; `body` has
// host.body_bytes on the device and gets all but the 12-byte header. Queued; `fault` holds the
// outcome when the stream is done.
void compress_on_device(Device& device, const cov_sparse_source& source, const HostPlan& host,
                        uint8_t* body, unsigned long long* fault);

// The whole call: `source` points to device memory, `body` to host memory.
void compress(Device& device, const cov_sparse_source& source, const cov_tensor_info* tensors,
              int32_t tensor_count, cov_sparse_format format, uint8_t* body, uint64_t body_bytes);

}  // namespace covenant::cuda
