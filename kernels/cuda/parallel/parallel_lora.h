// Adapters of a model on several devices: each stage has those of its layers, all replicas have the same, their
// gradients are summed over replicas. Tier: that of the model's calls (covenant/parallel.h).
#pragma once

#include <memory>
#include <vector>

#include "engine/lora.cuh"
#include "parallel/parallel_model.h"

namespace covenant::cuda {

class ParallelLora {
 public:
  ParallelLora(ParallelModel& model, const cov_lora_options& options);
  ~ParallelLora();
  ParallelLora(const ParallelLora&) = delete;
  ParallelLora& operator=(const ParallelLora&) = delete;

  uint64_t length() const { return spread_.count(); }
  // Of one device.
  Lora& at(size_t replica, size_t stage) { return *replicas_[replica][stage]; }
  int64_t step_count() const { return spread_.step_count(); }
  uint64_t memory_bytes() const;
  void set_step_count(int64_t count) { spread_.set_step_count(count); }
  void read(cov_buffer which, uint64_t offset, uint64_t count, float* values);
  void write(cov_buffer which, uint64_t offset, uint64_t count, const float* values);
  double optimizer_step(const cov_adamw_options& options);
  void merge(bool reversible);
  void unmerge();

 private:
  friend class ParallelModel;
  // Calls body(adapters) on every device, which is active.
  template <typename Body>
  void each(const Body& body);
  // From the gradients of all replicas; part of a call of the model.
  double step(const cov_adamw_options& options);

  ParallelModel& model_;
  std::vector<std::vector<std::unique_ptr<Lora>>> replicas_;  // by stage
  Spread spread_;
};

}  // namespace covenant::cuda
