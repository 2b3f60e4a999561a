// Where everything of an update lies, in the form that kernels take.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "runtime/device.h"
#include "sparse/layout.h"

namespace covenant::cuda {

// covenant::sparse::ChunkLayout as plain data.
struct ChunkShape {
  int32_t n;
  int32_t kept;
  int32_t low_bytes;
  int32_t upper_bits;
  int32_t upper_bytes;
  int32_t value_bits;
  int32_t value_bytes;
  int32_t bytes;
};

struct TensorPlan {
  uint64_t offset;  // in floats
  uint64_t length;
  uint64_t first_kept;  // among the kept values of all tensors
  uint64_t body_at;     // of the tensor header
  uint32_t first_chunk;  // among the chunks of all tensors
  uint32_t chunks;
  // The levels are chosen from chunks 0, stride, 2·stride, ...; 0: from none.
  uint32_t stride;
  uint32_t first_sample;  // among the sampled chunks of all tensors
  uint32_t samples;
  ChunkShape last;  // the last chunk may be shorter
};

// What every kernel of the codec is given.
struct SparsePlan {
  const TensorPlan* tensors;  // device memory
  int32_t tensor_count;
  uint32_t chunks;
  uint32_t samples;
  int32_t mode;
  int32_t header_bytes;  // of a tensor
  ChunkShape full;
};

// The same on the host, from a checked table and format.
struct HostPlan {
  std::vector<TensorPlan> tensors;
  SparsePlan plan{};
  uint64_t kept = 0;
  uint64_t body_bytes = 0;

  HostPlan(const cov_tensor_info* table, int32_t tensor_count, cov_sparse_format format);
  // Copies the tensors into scratch memory; the enclosing scope and this object must outlive the
  // work.
  SparsePlan upload(Device& device) const;
};

}  // namespace covenant::cuda
