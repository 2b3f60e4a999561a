// The long-lived generator and the calls around it on one device and on several, for the bodies of generate/schedules.h,
// and what the CPU yields.
#pragma once

#include <vector>

#include "covenant/device_generator.h"
#include "generate/schedules.h"

namespace covenant_test {

struct DeviceGenerator {
  using Generator = cov_device_generator;
  static constexpr auto release = cov_device_generator_release;
  static constexpr auto refresh = cov_device_generator_refresh;
  static constexpr auto submit = cov_device_generator_submit;
  static constexpr auto cancel = cov_device_generator_cancel;
  static constexpr auto step = cov_device_generator_step;
  static constexpr auto state = cov_device_generator_get_state;
};

struct OnDevice : DeviceGenerator {
  using Model = cov_device_model;
  static constexpr auto generate = cov_device_model_generate;
  static constexpr auto create = cov_device_generator_create;
};

inline std::vector<Completion> on_cpu(const cov_model_shape& shape, const std::vector<float>& parameters,
                                      const std::vector<Job>& jobs, int32_t weights = COV_WEIGHTS_F32) {
  const TestModel model(shape, parameters);
  std::vector<Completion> completions;
  for (const Job& job : jobs) completions.push_back(alone<CpuGenerator>(model, job, weights));
  return completions;
}

}  // namespace covenant_test
