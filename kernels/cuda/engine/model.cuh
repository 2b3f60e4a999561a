// One model on a device: parameters, moments, activations, and the passes over its layers. The twin of
// src/engine/model.h.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <vector>

#include "covenant/device_model.h"
#include "engine/gemm.cuh"
#include "engine/gemm_bf16.cuh"
#include "engine/model.h"
#include "engine/operand.cuh"
#include "engine/parameters.cuh"
#include "engine/scores.cuh"
#include "engine/slice.cuh"
#include "engine/vendor.h"
#include "generate/call.h"
#include "runtime/device.h"
#include "runtime/graph.h"

namespace covenant::cuda {

// Whole sequences that go through the layers together, as the device sees them.
struct Group {
  int64_t sequences = 0, length = 0, scored = 0, buckets = 0;
  int64_t rows() const { return sequences * length; }
  std::vector<int64_t> places;  // in the batch, of the scored rows
  std::vector<int32_t> host;    // what `data` is a copy of
  Buffer<int32_t> data;
  const int32_t *tokens, *positions, *scored_rows, *targets;
  const int32_t *bucket_tokens, *bucket_starts, *bucket_rows;
};

// What the backward pass needs of one group.
struct Activations {
  struct Layer {
    float *x, *r1, *qkv, *attention, *lse, *x2, *r2, *gate_up;
    Rows n1, n2, attention_rows;  // attention_rows: what the next product reads
    uint16_t *qkv16, *gate_up16;  // of a bf16 model, in place of qkv, attention and gate_up
  };
  std::vector<Layer> layers;
  float* last = nullptr;  // input of the final norm
  Rows hidden;

  // Room for `rows`; with `shared`, all layers lie on one set.
  void reserve(Device& device, const Layout& layout, int64_t rows, bool shared);

 private:
  Buffer<char> data_;
  int64_t capacity_ = 0;
  bool shared_ = false;
};

struct KeptGroup {
  Group group;
  Activations activations;
};

class Lora;  // lora.cuh

class Model {
 public:
  Model(Device& device, const cov_model_shape& shape, Compute compute)
      : Model(device, shape, Slice::whole(shape, compute)) {}
  // Holds a slice only: what works on the whole model (forward, train_step, generate) is not for it.
  Model(Device& device, const cov_model_shape& shape, Slice slice);
  // Waits for the device.
  ~Model();
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  Device& device() const { return device_; }
  Stream stream() const { return device_.stream(); }
  const Slice& slice() const { return slice_; }
  const Layout& layout() const { return layout_; }
  const cov_model_shape& shape() const { return shape_; }
  bool bf16() const { return layout_.compute == Compute::kBf16; }
  float eps() const { return static_cast<float>(shape_.rms_norm_eps); }

  Parameters& parameters() { return parameters_; }
  // What is trained: the parameters, or the adapters in use.
  Parameters& trained();
  float* state(cov_buffer which) { return parameters_.state(which); }
  int64_t step_count() const { return parameters_.step_count; }
  void set_step_count(int64_t count) { parameters_.step_count = count; }
  void read(cov_buffer which, uint64_t offset, uint64_t count, float* values) {
    parameters_.read(which, offset, count, values);
  }
  void write(cov_buffer which, uint64_t offset, uint64_t count, const float* values);
  // The parameters were written from outside.
  void touch();
  // From now on the parameters are frozen and these adapters are at work, or none when null.
  void use_lora(Lora* lora);
  Lora* lora() const { return lora_; }
  std::vector<Lora*> merged_adapters;  // reversibly, the last one on top
  // COV_FAILED_PRECONDITION when there are adapters that cannot be trained, or none may be.
  void require_trainable() const;
  void require_no_lora() const;
  // Where the gradient of the parameter at `offset` goes; null while it is frozen.
  float* gradient(int64_t offset) {
    return lora_ != nullptr ? nullptr : state(COV_GRADIENTS) + offset;
  }

  // Makes the rotary table cover `length` positions, and bf16 parameters and adapted matrices current.
  void prepare(int64_t length);
  // The table alone.
  void prepare_rope(int64_t length);
  const float* cosine() const { return cosine_.data(); }
  const float* sine() const { return sine_.data(); }

  // From now on products of bf16 training come from cuBLASLt.
  void use_vendor() { vendor_ = std::make_unique<VendorProducts>(device_); }

  // The matrix at `offset` of the parameters as products read it: in fp32, or of a bf16 model in bf16. Current after
  // prepare().
  const float* matrix(int64_t offset);
  const uint16_t* rounded_matrix(int64_t offset) const { return shadow_.data() + offset; }

  // out (rows, n) = residual + X W^T for the (n, k) matrix at `offset` of the parameters.
  void linear(Rows x, int64_t rows, int64_t offset, int64_t n, int64_t k, const float* residual,
              float* out);
  // out (rows, k) = dY W, rounded in a bf16 model.
  void linear_input(Rows dy, int64_t rows, int64_t offset, int64_t n, int64_t k, Rows out);
  // A product of training: from the vendor, where it is in use.
  void train_product(const ProductBf16& product);
  // Gradient at `offset`, or of the adapters there, += dY^T X.
  void linear_weight(Rows dy, Rows x, int64_t rows, int64_t offset, int64_t n, int64_t k);
  // x as the products read it: itself, or rounded to `rounded`.
  Rows operand(float* x, int64_t count, uint16_t* rounded);

  // All layers, from activations.layers[0].x to activations.last.
  void forward_layers(const Group& group, const Activations& activations);
  // From dx, the gradient at activations.last, through all layers to the gradient at layers[0].x.
  void backward_layers(const Group& group, const Activations& activations, float* dx);

  // Final norm, logits and scores, the most probable tokens only without `backward`; with it also dx += the gradient at activations.last, by
  // coefficients (scored rows, on the device) or, without them, `constant`.
  void head(const Group& group, const Activations& activations, float inverse_temperature,
            const HeadResults& results, bool backward, const float* coefficients, float constant,
            float* dx);
  // Sequences of one group.
  int64_t group_sequences(int64_t length) const;
  void clear_non_finite();
  // Waits, and raises COV_NON_FINITE when logits since clear_non_finite() were not finite.
  void check_finite();
  // AdamW from the gradients, whose norm is `norm`, without waiting for it.
  void apply_gradients(const cov_adamw_options& options, double norm);

  void forward(const cov_batch& batch, const cov_forward_options& options,
               const cov_forward_output& output);
  void backward(const float* coefficients, uint64_t count);
  double optimizer_step(const cov_adamw_options& options);
  void train_step(const cov_batch& batch, const cov_adamw_options& options, double* loss,
                  double* norm);
  void generate(const cov_generate_request* requests, int32_t count, const cov_generate_options& options,
                cov_generate_output* outputs, const Share& share = {});
  void replay(const cov_replay_request* requests, int32_t count, const cov_replay_options& options,
              const cov_replay_output* outputs, const Share& share = {});
  void drop_kept() { kept_.clear(); }

  // Whether generation uses CUDA graphs, and what came of it.
  bool graphs;
  GraphCounts& graph_counts() { return graph_counts_; }
  const GraphCounts& graph_counts() const { return graph_counts_; }

 private:
  void forward_layers_bf16(const Group& group, const Activations& activations);
  void backward_layers_bf16(const Group& group, const Activations& activations, float* dx);
  // As linear, with results in bf16; `hidden` (may be null) is SwiGLU of them.
  void linear_bf16(const uint16_t* x, int64_t rows, int64_t offset, int64_t n, int64_t k,
                   uint16_t* out, uint16_t* hidden = nullptr);
  int64_t head_rows() const;
  void backward_group(const Group& group, const Activations& activations, float inverse_temperature,
                      const float* coefficients, float constant, float* log_probs);

  Device& device_;
  cov_model_shape shape_;
  Slice slice_;
  const Layout& layout_ = slice_.layout;
  Parameters parameters_;
  Buffer<uint16_t> shadow_;  // parameters in bf16, with the adapters in use
  bool shadow_fresh_ = false;
  std::unique_ptr<VendorProducts> vendor_;
  Buffer<float> cosine_, sine_;
  int64_t rope_length_ = 0;
  Lora* lora_ = nullptr;
  Buffer<int32_t> non_finite_;
  Scores scores_;
  Activations activations_;
  std::vector<KeptGroup> kept_;
  uint64_t kept_positions_ = 0;
  float kept_inverse_temperature_ = 1.0f;
  GraphCounts graph_counts_;
};

// Sequences [first, first + count) of a batch, on the device. Work in the stream still reads
// `group.host`, so it must outlive it.
void make_group(Device& device, const cov_batch& batch, int64_t first, int64_t count, Group& group);

}  // namespace covenant::cuda
