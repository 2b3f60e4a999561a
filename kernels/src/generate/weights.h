// The weights of generation: a snapshot of a model's parameters, packed in one of three types.
//
// f32: the parameters. bf16: every parameter rounded to bf16 (half to even), arithmetic in fp32.
// int8: matrices with one scale per output, activations with one scale per row; embedding and norms
// stay fp32. With bf16 and int8, keys and values are bf16 as well (generate/pages.h).
#pragma once

#include <cstdint>
#include <vector>

#include "core/thread_pool.h"
#include "covenant/model.h"
#include "engine/memory.h"
#include "engine/model.h"
#include "generate/kernels.h"

namespace covenant {

// A packed (n, k) matrix.
struct GenerationMatrix {
  int64_t n = 0, k = 0;
  int32_t type = COV_WEIGHTS_F32;
  const float* f32 = nullptr;
  const uint16_t* bf16 = nullptr;
  Int8Panels int8 = {};
};

class GenerationWeights {
 public:
  struct Layer {
    GenerationMatrix qkv, o, gate, up, down;
    const float *norm1, *norm2;
  };

  // Copies and packs the model's parameters as they are now. Throws Failure.
  void pack(cov_model& model, int32_t type);

  // x (rows, d) = embedding[tokens].
  void embed(const int32_t* tokens, int64_t rows, float* x) const;

  int32_t type() const { return type_; }
  const Layer& layer(int64_t i) const { return layers_[static_cast<size_t>(i)]; }
  const GenerationMatrix& head() const { return head_; }
  const float* final_norm() const { return final_norm_; }
  uint64_t bytes() const { return static_cast<uint64_t>(data_.count()); }

 private:
  int32_t type_ = COV_WEIGHTS_F32;
  int64_t d_ = 0;
  Buffer<uint8_t> data_;
  std::vector<Layer> layers_;
  GenerationMatrix head_;
  const float* final_norm_ = nullptr;
  const float* embedding_f32_ = nullptr;
  const uint16_t* embedding_bf16_ = nullptr;
};

// out (m, columns) = residual + x W^T for columns [first, first + columns) of the matrix; `first` is
// a multiple of 32; out and residual (may be null) begin at that column. Of x and bytes the one is
// used that the matrix's type needs.
void multiply_block(const GenerationKernels& kernel, const GenerationMatrix& w, int64_t m, int64_t first,
                    int64_t columns, const float* x, int64_t x_row, const Int8Rows& bytes,
                    const float* residual, float* out, int64_t out_row);

// The model's own snapshot, packed anew from its parameters.
GenerationWeights& packed_generation_weights(cov_model& model, int32_t type);

// Nearest bf16, ties to even; NaN stays NaN.
uint16_t bf16_of(float x);

}  // namespace covenant
