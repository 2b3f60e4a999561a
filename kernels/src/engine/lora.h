// Adapters of a model (covenant/lora.h).
#pragma once

#include <cstdint>
#include <vector>

#include "engine/gemm.h"
#include "engine/lora_plan.h"
#include "engine/memory.h"

struct cov_lora : covenant::LoraPlan {
  // s A and s B of a group for backward, packed last.
  struct Packed {
    covenant::PackedMatrix a, b;
  };

  cov_lora(cov_model& of, const cov_lora_options& options);

  cov_model* model;
  int64_t step_count = 0;
  bool merged = false;            // reversibly
  std::vector<Packed> factors;    // by group
  covenant::Buffer<float> buffers[4];
  covenant::Buffer<float> matrix;  // W' of the matrix packed last
  covenant::Buffer<float> base;    // what the adapted matrices were before merging
  covenant::Buffer<char> packed;   // s A and s B of all groups
  covenant::Buffer<float> work;    // backward of one group

  float* state(cov_buffer which);
  void clear_gradients();
  // out (n, k) += scale B A.
  void add_to(const Adapter& adapter, float* out);
};

namespace covenant {

// The (n, k) matrix at `offset` of the parameters as the model computes with it: with the adapters
// in use added. Valid until the next call. Throws Failure.
const float* effective_matrix(cov_model& model, int64_t offset, int64_t n, int64_t k);

// Packs A and B for lora_gradient over up to `rows` rows. Throws Failure (also while merged).
void prepare_lora(cov_lora& lora, int64_t rows);

// Adds the gradients of the adapters in the matrix at `offset` to their COV_GRADIENTS, given
// dy (rows, n) and x (rows, k) of y = x W'^T. Without adapters there it does nothing.
void lora_gradient(cov_lora& lora, int64_t offset, Operand dy, Operand x, int64_t rows);

// One AdamW step of A and B; the norm before clipping. Throws COV_NON_FINITE as optimizer_step.
double lora_optimizer_step(cov_lora& lora, const cov_adamw_options& options);

}  // namespace covenant
