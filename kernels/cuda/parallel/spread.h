// Parameters with what trains them, in parts on the stages of each replica: those of a model, or those of
// adapters. Offsets are of the whole.
#pragma once

#include <memory>
#include <vector>

#include "engine/parameters.cuh"
#include "engine/slice.cuh"
#include "parallel/communicator.h"

namespace covenant::cuda {

// Of the replicas' devices of one stage each; none for a single replica.
using Rings = std::vector<std::unique_ptr<Communicator>>;

class Spread {
 public:
  // What one device holds.
  struct Piece {
    Device& device;
    Parameters& parameters;
    std::vector<Slice::Part> parts;
  };
  using Replica = std::vector<Piece>;  // by stage

  // The rings must outlive it.
  explicit Spread(const Rings& rings) : rings_(rings) {}
  // Replicas are alike.
  void add(Replica replica);

  uint64_t count() const { return count_; }
  int64_t step_count() const { return replicas_[0][0].parameters.step_count; }
  void set_step_count(int64_t count);
  // Of one replica.
  void read(size_t replica, cov_buffer which, uint64_t offset, uint64_t count, float* values);
  // To all replicas; gradients to the first one, where the others add nothing.
  void write(cov_buffer which, uint64_t offset, uint64_t count, const float* values);
  // All replicas get the sum of their gradients.
  void sum_gradients();
  // The sum of the gradients goes to the first replica, so that what is added later is added once.
  void collect_gradients();
  void clear_gradients();
  // Allocates what a step needs.
  void prepare_step();
  // Of the gradients of replica 0, in the order of a single device. COV_NON_FINITE.
  double gradient_norm();

 private:
  template <typename Body>
  void each(const Body& body);
  void gather_chunks();

  const Rings& rings_;
  std::vector<Replica> replicas_;
  uint64_t count_ = 0;
};

}  // namespace covenant::cuda
