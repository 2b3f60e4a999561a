// Projections of a hidden state on pseudo-random sign vectors (covenant/model.h, "Fingerprint").
#pragma once

#include <cstdint>
#include <vector>

#include "covenant/model.h"

namespace covenant {

class Fingerprint {
 public:
  // `options` may be null: then dims() is 0 and compute writes nothing.
  Fingerprint(const cov_fingerprint_options* options, int64_t hidden, float eps);

  int64_t dims() const { return dims_; }

  // out[0, dims) of the final hidden state (before the final norm). normed: `hidden` floats.
  void compute(const float* hidden_state, float* normed, int8_t* out) const;

 private:
  int64_t dims_, hidden_;
  float eps_;
  std::vector<float> ones_;
  std::vector<float> signs_;  // (dims, hidden)
};

}  // namespace covenant
