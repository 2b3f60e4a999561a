#include "sparse/peers.h"

#include <algorithm>
#include <cmath>

#include "core/given.h"
#include "sparse/norm.h"

namespace covenant::sparse {

cov_status check_merge_input(const cov_merge_input& input) {
  if (input.count < 1 || input.count > COV_SPARSE_PEERS_MAX) {
    return cov_error(COV_INVALID_ARGUMENT, "%d updates to merge; 1 to %d are possible", input.count,
                     COV_SPARSE_PEERS_MAX);
  }
  if (input.rule != COV_MERGE_CONTRIBUTORS && input.rule != COV_MERGE_ALL) {
    return cov_error(COV_INVALID_ARGUMENT, "merge rule %d is not known", input.rule);
  }
  if (cov_status status =
          given("bodies, their sizes and weights", input.bodies, input.body_bytes, input.weights);
      status.code != COV_OK)
    return status;
  bool any = false;
  for (int32_t r = 0; r < input.count; ++r) {
    if (!(input.weights[r] >= 0) || !std::isfinite(input.weights[r])) {
      return cov_error(COV_INVALID_ARGUMENT, "weight %d is not a finite number of at least 0", r);
    }
    any |= input.weights[r] > 0;
  }
  return any ? cov_ok() : cov_error(COV_INVALID_ARGUMENT, "all weights are zero");
}

Peers::Peers(const cov_merge_input& input, const cov_tensor_info* tensors, int32_t tensor_count,
             cov_sparse_format format)
    : input_(input), tensors_(tensors), tensor_count_(tensor_count), format_(format) {
  for (int32_t r = 0; r < input.count; ++r) {
    if (input.weights[r] > 0) peers_.push_back(r);
  }
  for (const int32_t r : peers_) total_weight_ = total_weight_ + input.weights[r];
  uint64_t body_at = kHeaderBytes;
  for (int32_t t = 0; t < tensor_count; ++t) {
    body_at_.push_back(body_at);
    body_at += tensor_size(tensors[t].length, format).bytes;
  }
  factors_.assign(static_cast<size_t>(tensor_count) * peers_.size(), 1.0f);
  norms_.resize(factors_.size());
}

cov_status Peers::check(ThreadPool& pool) const {
  std::atomic<int32_t> refused{input_.count};
  const auto verdict = [this](int32_t r) {
    return cov_sparse_check(input_.bodies[r], input_.body_bytes[r], tensors_, tensor_count_,
                            format_, nullptr);
  };
  pool.run(input_.count, [&](int64_t r) {
    const auto position = static_cast<int32_t>(r);
    if (position > refused.load(std::memory_order_relaxed)) return;
    if (verdict(position).code == COV_OK) return;
    int32_t seen = refused.load();
    while (position < seen && !refused.compare_exchange_weak(seen, position)) {
    }
  });
  const int32_t r = refused.load();
  if (r == input_.count) return cov_ok();
  const cov_status status = verdict(r);
  return refuse(status.code, "update %d: %s", r, status.message);
}

void Peers::find_factors(ThreadPool& pool) {
  if (!input_.clip_to_median_norm) return;
  const auto peers = static_cast<int64_t>(peers_.size());
  pool.run(tensor_count_ * peers, [&](int64_t task) {
    const auto t = static_cast<int32_t>(task / peers);
    MagnitudeCounts counts;
    count_magnitudes(tensor_bytes(t, static_cast<size_t>(task % peers)), tensors_[t].length,
                     format_, counts);
    norms_[static_cast<size_t>(task)] = norm_of(counts);
  });
  std::vector<double> sorted(peers_.size());
  for (int32_t t = 0; t < tensor_count_; ++t) {
    const size_t first = static_cast<size_t>(t) * peers_.size();
    std::copy_n(norms_.begin() + static_cast<std::ptrdiff_t>(first), peers_.size(),
                sorted.begin());
    std::sort(sorted.begin(), sorted.end());
    const double median = sorted[(sorted.size() - 1) / 2];
    for (size_t p = 0; p < peers_.size(); ++p) {
      const double norm = norms_[first + p];
      if (norm > median) factors_[first + p] = static_cast<float>(median / norm);
    }
  }
}

}  // namespace covenant::sparse
