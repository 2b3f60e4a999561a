// A model on several devices, for tests.
#pragma once

#include <string>

#include "../engine/support.h"
#include "covenant/parallel.h"

namespace covenant_test {

constexpr cov_adamw_options kAdamw = {1e-2f, 0.9f, 0.95f, 1e-8f, 0.1f, 1.0f};

// On devices 0 to count - 1.
class ParallelModel {
 public:
  ParallelModel(int32_t count, const cov_model_shape& shape, const std::vector<float>& parameters,
                const cov_parallel_options& options)
      : count_(cov_parameter_count(&shape)) {
    const int32_t devices[] = {0, 1, 2, 3};
    CHECK_OK(cov_parallel_model_create(devices, count, &shape, &options, &model_));
    CHECK_OK(cov_parallel_model_write(model_, COV_PARAMETERS, 0, count_, parameters.data()));
  }
  ~ParallelModel() { cov_parallel_model_release(model_); }
  ParallelModel(const ParallelModel&) = delete;
  ParallelModel& operator=(const ParallelModel&) = delete;
  operator cov_parallel_model*() const { return model_; }  // NOLINT: implicit on purpose
  std::string report() const { return cov_parallel_model_report(model_); }
  std::vector<float> read(cov_buffer which) const {
    std::vector<float> values(count_);
    CHECK_OK(cov_parallel_model_read(model_, which, 0, count_, values.data()));
    return values;
  }
  std::vector<float> read_replica(int32_t replica, cov_buffer which) const {
    std::vector<float> values(count_);
    CHECK_OK(
        cov_parallel_model_read_replica(model_, replica, which, 0, count_, values.data()));
    return values;
  }

 private:
  cov_parallel_model* model_ = nullptr;
  uint64_t count_;
};

// Untied, prime sizes, parameters that span chunks of the optimizer; tied.
inline std::vector<cov_model_shape> parallel_shapes() {
  return {{1381, 12, 17, 4, 2, 1, 64, 0, 500.0, 1e-6}, {13, 6, 7, 5, 1, 1, 64, 1, 10000.0, 1e-5}};
}

}  // namespace covenant_test
