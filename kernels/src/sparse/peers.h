// The updates of several peers, validated, and how much each counts: what merging and updating
// share.
#pragma once

#include <atomic>
#include <vector>

#include "core/thread_pool.h"
#include "sparse/body.h"

namespace covenant::sparse {

cov_status check_merge_input(const cov_merge_input& input);

class Peers {
 public:
  // May throw std::bad_alloc.
  Peers(const cov_merge_input& input, const cov_tensor_info* tensors, int32_t tensor_count,
        cov_sparse_format format);

  // Validates every body; the message names the position of the first refused one.
  cov_status check(ThreadPool& pool) const;

  // Finds the clipping factors, when asked for. Afterwards peers may be read.
  void find_factors(ThreadPool& pool);

  // Those with weight, in order.
  size_t count() const { return peers_.size(); }
  float weight(size_t peer) const { return input_.weights[peers_[peer]]; }
  float total_weight() const { return total_weight_; }
  float factor(int32_t t, size_t peer) const {
    return factors_[static_cast<size_t>(t) * peers_.size() + peer];
  }
  const uint8_t* tensor_bytes(int32_t t, size_t peer) const {
    return input_.bodies[peers_[peer]] + body_at_[static_cast<size_t>(t)];
  }

 private:
  void clip(int32_t t);

  const cov_merge_input& input_;
  const cov_tensor_info* const tensors_;
  const int32_t tensor_count_;
  const cov_sparse_format format_;
  std::vector<int32_t> peers_;
  float total_weight_ = 0;
  std::vector<uint64_t> body_at_;  // of each tensor
  std::vector<double> norms_;      // per tensor and peer
  std::vector<float> factors_;
};

}  // namespace covenant::sparse
