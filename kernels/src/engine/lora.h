// Adapters of a model (covenant/lora.h).
//
// Matrices that the layers multiply as one (q, k, v; gate and up) form a group, whose adapters are
// one adapter of rank R = rank * members: A stacked (R, k), B block diagonal (n, R).
#pragma once

#include <cstdint>
#include <vector>

#include "covenant/lora.h"
#include "engine/gemm.h"
#include "engine/memory.h"

struct cov_lora {
  // One adapted matrix: its place in the model's parameters, A and B in the adapters' own.
  struct Adapter {
    int64_t offset, n, k;
    int64_t a, b;
  };
  struct Group {
    int64_t offset, n, k;          // of the whole matrix
    size_t first, count;           // its adapters
    covenant::PackedMatrix a, b;   // s A and s B for backward, packed last
  };

  cov_model* model = nullptr;
  int32_t rank = 0;
  float scale = 0;  // alpha / rank
  int64_t size = 0;
  int64_t step_count = 0;
  bool merged = false;            // reversibly
  std::vector<Adapter> adapters;  // by offset
  std::vector<Group> groups;      // by offset
  covenant::Buffer<float> buffers[4];
  covenant::Buffer<float> matrix;  // W' of the matrix packed last
  covenant::Buffer<float> base;    // what the adapted matrices were before merging
  covenant::Buffer<char> packed;   // s A and s B of all groups
  covenant::Buffer<float> work;    // backward of one group

  float* state(cov_buffer which);
  void clear_gradients();
  // out (n, k) += scale B A.
  void add_to(const Adapter& adapter, float* out);
  int64_t group_rank(const Group& group) const { return rank * static_cast<int64_t>(group.count); }
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
