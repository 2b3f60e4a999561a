// Adapters of a model on a device (covenant/lora.h): the twin of src/engine/lora.h. In an fp32 model tier A,
// the CPU's bits; in a bf16 model tier B, W' rounded once and the products of gradients on the tensor cores.
#pragma once

#include "engine/lora_plan.h"
#include "engine/model.cuh"

namespace covenant::cuda {

class Lora {
 public:
  Lora(Model& model, const cov_lora_options& options);
  // Waits for the device, and ends its use.
  ~Lora();
  Lora(const Lora&) = delete;
  Lora& operator=(const Lora&) = delete;

  Model& model() const { return model_; }
  Parameters& parameters() { return parameters_; }
  int64_t step_count() const { return parameters_.step_count; }
  uint64_t memory_bytes() const {
    return parameters_.memory_bytes() + matrices_.bytes() + base_.bytes();
  }
  void set_step_count(int64_t count) { parameters_.step_count = count; }
  void read(cov_buffer which, uint64_t offset, uint64_t count, float* values) {
    parameters_.read(which, offset, count, values);
  }
  void write(cov_buffer which, uint64_t offset, uint64_t count, const float* values);

  // The parameters of the model or of the adapters changed.
  void touch() { fresh_ = false; }
  // Merged reversibly: the model's parameters are W', and cannot be trained through the adapters.
  bool merged() const { return merged_; }
  void require_unmerged() const;

  // Makes the adapted matrices current: W' in fp32 here, or rounded into the model's bf16 parameters
  // `shadow`, which hold the base.
  void compose(uint16_t* shadow);
  // W' in fp32 of the matrix at `offset` of the parameters, as composed last; null where it has no adapter.
  const float* matrix(int64_t offset) const;
  // Adds the gradients of the adapters in the matrix at `offset`, given dy (rows, n) and x (rows, k).
  void gradient(int64_t offset, Rows dy, Rows x, int64_t rows);

  // Waits; the norm before clipping.
  double optimizer_step(const cov_adamw_options& options);
  // Without waiting, from gradients whose norm is known.
  void apply_gradients(const cov_adamw_options& options, double norm);
  // Of merge: refusals, and memory for it.
  void prepare_merge(bool reversible);
  void merge(bool reversible);
  void require_last_merged() const;
  void unmerge();

 private:
  void add_to_model();

  Model& model_;
  LoraPlan plan_;
  Parameters parameters_;
  std::vector<uint64_t> starts_;  // of the groups in `matrices_`, and their end
  Buffer<float> matrices_;        // W' of all groups
  Buffer<float> base_;            // what the adapted matrices were before merging
  bool fresh_ = false;
  bool merged_ = false;
};

}  // namespace covenant::cuda
