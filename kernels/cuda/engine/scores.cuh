// What forward says of the scored rows of groups: on the device, by scored row, until it is brought to the places
// of the rows in the batch.
#pragma once

#include <vector>

#include "covenant/model.h"
#include "engine/head.cuh"
#include "runtime/device.h"

namespace covenant::cuda {

class Scores {
 public:
  // Room for so many rows with as many of the most probable tokens each; what was in it is lost.
  void reserve(Device& device, uint64_t rows, int32_t top_count);
  // Where the results from a row on belong.
  HeadResults from(uint64_t row) const;
  // Brings the first rows to the host. Waits for the device.
  void download(Device& device, uint64_t rows);
  // Row first + i, of those downloaded, to places[i].
  void place(uint64_t first, const std::vector<int64_t>& places, const cov_forward_output& output) const;

 private:
  int32_t top_count_ = 0;
  Buffer<float> log_probs_, entropy_, top_log_probs_;
  Buffer<int32_t> top_tokens_;
  std::vector<float> host_log_probs_, host_entropy_, host_top_log_probs_;
  std::vector<int32_t> host_top_tokens_;
};

}  // namespace covenant::cuda
