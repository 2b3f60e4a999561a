// A model on the device and the same one on the CPU, for tests.
#pragma once

#include <vector>

#include "covenant/device_model.h"
#include "device_test.h"
#include "engine/support.h"

namespace covenant_test {

class DeviceModel {
 public:
  DeviceModel(cov_device* device, const cov_model_shape& shape, const std::vector<float>& parameters,
              int32_t compute = COV_COMPUTE_F32)
      : count_(cov_parameter_count(&shape)) {
    CHECK_OK(cov_device_model_create(device, &shape, compute, &model_));
    CHECK_OK(cov_device_model_write(model_, COV_PARAMETERS, 0, count_, parameters.data()));
  }
  ~DeviceModel() { cov_device_model_release(model_); }
  DeviceModel(const DeviceModel&) = delete;
  DeviceModel& operator=(const DeviceModel&) = delete;
  operator cov_device_model*() const { return model_; }  // NOLINT: implicit on purpose
  std::vector<float> read(cov_buffer which) const {
    std::vector<float> values(count_);
    CHECK_OK(cov_device_model_read(model_, which, 0, count_, values.data()));
    return values;
  }

 private:
  cov_device_model* model_ = nullptr;
  uint64_t count_;
};

struct TestBatch {
  std::vector<int32_t> tokens, targets;
  cov_batch batch;
  TestBatch(const cov_model_shape& shape, int32_t sequences, int32_t length, uint32_t seed,
            int32_t unscored = 5) {
    Numbers numbers(seed);
    tokens = numbers.tokens(int64_t{sequences} * length, shape.vocab_size);
    targets = numbers.tokens(int64_t{sequences} * length, shape.vocab_size);
    for (int32_t& target : targets)
      if (numbers.below(unscored) == 0) target = -1;
    targets[0] = 1;
    batch = {tokens.data(), targets.data(), sequences, length};
  }
};

// What a forward says of each position, with the `tops` most probable tokens.
struct ForwardResults {
  std::vector<float> log_probs, entropy, top_log_probs;
  std::vector<int32_t> top_tokens;
  ForwardResults(size_t positions, int32_t tops)
      : log_probs(positions),
        entropy(positions),
        top_log_probs(positions * static_cast<size_t>(tops)),
        top_tokens(top_log_probs.size()) {}
  cov_forward_output output() {
    return {log_probs.data(), entropy.data(), top_tokens.data(), top_log_probs.data()};
  }
};

inline void check_same(const ForwardResults& found, const ForwardResults& expected) {
  const size_t bytes = expected.log_probs.size() * sizeof(float);
  CHECK_SAME(found.log_probs.data(), expected.log_probs.data(), bytes);
  CHECK_SAME(found.entropy.data(), expected.entropy.data(), bytes);
  CHECK(found.top_tokens == expected.top_tokens);
  const size_t tops = expected.top_log_probs.size() * sizeof(float);
  CHECK_SAME(found.top_log_probs.data(), expected.top_log_probs.data(), tops);
}

// Largest difference, relative to the largest expected magnitude.
inline double difference(const std::vector<float>& found, const float* expected) {
  double largest = 0.0, magnitude = 1e-30;
  for (size_t i = 0; i < found.size(); ++i) {
    const double d = std::fabs(static_cast<double>(found[i]) - static_cast<double>(expected[i]));
    if (!(d <= largest)) largest = d;
    magnitude = std::fmax(magnitude, std::fabs(static_cast<double>(expected[i])));
  }
  return largest / magnitude;
}

}  // namespace covenant_test
