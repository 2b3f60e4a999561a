// Adapters of a model, or of a slice of one, on a device (covenant/lora.h): the twin of src/engine/lora.h. In an fp32 model tier A,
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
  // Where they lie in the buffers of all adapters of the whole model, and in those here.
  Slice::Part part() const {
    const auto before = static_cast<uint64_t>(plan_.floats_before);
    return {before, before % kAdamwChunk, static_cast<uint64_t>(plan_.size)};
  }
  uint64_t length() const { return static_cast<uint64_t>(plan_.size); }
  int64_t step_count() const { return parameters_.step_count; }
  uint64_t memory_bytes() const {
    return parameters_.memory_bytes() + matrices_.bytes() + base_.bytes();
  }
  void set_step_count(int64_t count) { parameters_.step_count = count; }
  // Of these adapters alone, as write.
  void read(cov_buffer which, uint64_t offset, uint64_t count, float* values) {
    parameters_.read(which, part().local + offset, count, values);
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
  // W' in fp32 of that matrix, as the parameters are now, into `to`; false where it has no adapter.
  bool compose_matrix(int64_t offset, float* to);
  // Adds the gradients of the adapters in the matrix at `offset`, given dy (rows, n) and x (rows, k).
  void gradient(int64_t offset, Rows dy, Rows x, int64_t rows);

  // Waits; the norm before clipping.
  double optimizer_step(const cov_adamw_options& options);
  // Without waiting, from gradients whose norm is known.
  void apply_gradients(const cov_adamw_options& options, double norm);
  // Of merge: refusals, and memory for it, which goes again where nothing was merged.
  void prepare_merge(bool reversible);
  void drop_unmerged();
  void merge(bool reversible);
  void require_last_merged() const;
  void unmerge();

 private:
  float* state(cov_buffer which) { return parameters_.state(which) + part().local; }
  void add_to_model();
  void compose_group(const LoraPlan::Group& group, float* to);

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
