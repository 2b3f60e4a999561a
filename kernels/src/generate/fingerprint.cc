// p_m = sum_i sign(m, i) y_i / sqrt(hidden); the byte is 16 p_m, rounded and clamped.
#include "generate/fingerprint.h"

#include <algorithm>
#include <cmath>

#include "covenant/rng.h"
#include "engine/isa/table.h"

namespace covenant {

Fingerprint::Fingerprint(const cov_fingerprint_options* options, int64_t hidden, float eps)
    : dims_(options == nullptr ? 0 : options->dims), hidden_(hidden), eps_(eps) {
  ones_.assign(static_cast<size_t>(dims_ == 0 ? 0 : hidden), 1.0f);
  signs_.resize(static_cast<size_t>(dims_ * hidden));
  for (int64_t m = 0; m < dims_; ++m)
    for (int64_t i = 0; i < hidden; ++i)
      signs_[static_cast<size_t>(m * hidden + i)] = static_cast<float>(
          cov_fingerprint_sign(options->seed, static_cast<uint32_t>(m), static_cast<uint32_t>(i)));
}

void Fingerprint::compute(const float* hidden_state, float* normed, int8_t* out) const {
  if (dims_ == 0) return;
  const KernelTable& kernel = kernels();
  kernel.rmsnorm(hidden_state, ones_.data(), eps_, hidden_, normed);
  const float scale = 16.0f / std::sqrt(static_cast<float>(hidden_));
  for (int64_t m = 0; m < dims_; ++m) {
    const float p = kernel.dot(normed, signs_.data() + m * hidden_, hidden_) * scale;
    // Rounds half to even: adding and subtracting 1.5 * 2^23 leaves an integer.
    const float rounded = (std::clamp(p, -128.0f, 127.0f) + 12582912.0f) - 12582912.0f;
    out[m] = static_cast<int8_t>(rounded);
  }
}

}  // namespace covenant
