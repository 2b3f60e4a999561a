// Adapters of a model (covenant/lora.h).
#pragma once

#include <cstdint>
#include <vector>

#include "covenant/lora.h"
#include "engine/memory.h"

struct cov_lora {
  // One adapted matrix: its place in the model's parameters, A and B in the adapters' own.
  struct Adapter {
    int64_t offset, n, k;
    int64_t a, b;
  };

  cov_model* model = nullptr;
  int32_t rank = 0;
  float scale = 0;  // alpha / rank
  int64_t size = 0;
  int64_t step_count = 0;
  std::vector<Adapter> adapters;  // by offset
  covenant::Buffer<float> buffers[4];
  covenant::Buffer<float> matrix;  // W' of the matrix packed last

  float* state(cov_buffer which);
  // out (n, k) += scale B A.
  void add_to(const Adapter& adapter, float* out);
};

namespace covenant {

// The (n, k) matrix at `offset` of the parameters as the model computes with it: with the adapters
// in use added. Valid until the next call. Throws Failure.
const float* effective_matrix(cov_model& model, int64_t offset, int64_t n, int64_t k);

}  // namespace covenant
