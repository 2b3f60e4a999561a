// The pass of generation and replay through the layers of a model, or of a slice of one, over weights of any type.
// Tier A but for bf16 on the tensor cores, which is tier B: a row's bits do not depend on the rows beside it, and with
// every other form they are the CPU's (src/generate/decoder.h).
#pragma once

#include <functional>

#include "engine/generation_weights.cuh"

namespace covenant::cuda {

// Allocates when it is made and never later, so that graphs of its passes stay valid. The weights must outlive it;
// when they are refreshed it goes on with the new ones.
class GenerationLayers {
 public:
  // Of a pass at most `rows`.
  GenerationLayers(const GenerationWeights& weights, int64_t rows);

  const GenerationWeights& weights() const { return weights_; }

  // Rows (rows, d) that a pass begins with, and then the input of the final norm. What computes the layers before
  // these writes them, and what computes those after these reads them.
  float* x() const { return x_; }
  // x = embedding[tokens].
  void embed(const int32_t* tokens, int64_t rows) { weights_.embed(tokens, rows, x_); }

  // The attention of a layer, from rotated (q | k | v) to (rows, d), is the caller's affair.
  using Attend = std::function<void(int64_t layer, const float* qkv, float* out)>;
  // Rows [first, first + rows) of x; positions are theirs.
  void forward(int64_t first, const int32_t* positions, int64_t rows, const Attend& attend);

  // Final norm and logits (rows, vocab) of rows of x given by index.
  void logits(const int32_t* index, int64_t rows, float* out);

 private:
  // What products read, made of x, of the attention or of (gate | up). With int8 weights that is bytes_.
  Rows normalise(const float* x, const int32_t* index, const float* gain, int64_t rows);
  Rows attended(int64_t rows);
  Rows gated(int64_t rows);
  void multiply(const GenerationMatrix& w, Rows x, int64_t rows, const float* init, float* out);

  const GenerationWeights& weights_;
  Model& model_;
  Buffer<char> data_;
  float *x_ = nullptr, *qkv_ = nullptr, *attention_ = nullptr, *gate_up_ = nullptr;
  Rows normed_, attended_, hidden_;
  int8_t* bytes_ = nullptr;  // what the product under way reads
  float* scales_ = nullptr;
};

}  // namespace covenant::cuda
