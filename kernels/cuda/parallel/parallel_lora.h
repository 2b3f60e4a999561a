// Adapters of a model on several devices: the same on every replica, their gradients summed over replicas.
// They are not split over stages (COV_UNSUPPORTED). Tier: that of the model's calls (covenant/parallel.h).
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

  Parameters& parameters() { return replicas_[0]->parameters(); }
  // Of one replica.
  Lora& at(size_t replica) { return *replicas_[replica]; }
  int64_t step_count() const { return replicas_[0]->step_count(); }
  uint64_t memory_bytes() const;
  void set_step_count(int64_t count);
  void read(cov_buffer which, uint64_t offset, uint64_t count, float* values);
  void write(cov_buffer which, uint64_t offset, uint64_t count, const float* values);
  double optimizer_step(const cov_adamw_options& options);
  void merge(bool reversible);
  void unmerge();

 private:
  friend class ParallelModel;
  // Calls body(adapters) on every replica, its device active.
  template <typename Body>
  void each(const Body& body);
  void sum_gradients();
  // From the gradients of all replicas; part of a call of the model.
  double step(const cov_adamw_options& options);

  ParallelModel& model_;
  std::vector<std::unique_ptr<Lora>> replicas_;
};

}  // namespace covenant::cuda
