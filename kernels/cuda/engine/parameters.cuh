// A flat buffer of parameters with what trains it: gradients, moments and steps of AdamW. Of a model, or of
// adapters. Tier A: equal gradients give the CPU's bits.
#pragma once

#include <vector>

#include "covenant/model.h"
#include "engine/optimizer.cuh"

namespace covenant::cuda {

class Parameters {
 public:
  // ranges: what a step changes.
  Parameters(Device& device, uint64_t count, std::vector<AdamwRange> ranges);

  int64_t step_count = 0;
  uint64_t count() const { return count_; }
  uint64_t memory_bytes() const;
  // Zeroed on first use.
  float* state(cov_buffer which);
  void read(cov_buffer which, uint64_t offset, uint64_t count, float* values);
  void write(cov_buffer which, uint64_t offset, uint64_t count, const float* values);
  void clear_gradients();
  // Allocates what a step needs.
  void prepare_step();
  // Sums of squares of the chunks of kAdamwChunk gradients; waits for them.
  std::vector<double> gradient_sums();
  // Root of their sum. Gradients that have none are cleared, with COV_NON_FINITE.
  double gradient_norm();
  // AdamW from the gradients, whose norm is `norm`, without waiting for it. `shadow` (may be null) gets the
  // new parameters in bf16.
  void apply_gradients(const cov_adamw_options& options, double norm, uint16_t* shadow);

 private:
  Device& device_;
  uint64_t count_;
  std::vector<AdamwRange> host_ranges_;
  Buffer<AdamwRange> ranges_;
  Buffer<float> states_[4];
};

}  // namespace covenant::cuda
