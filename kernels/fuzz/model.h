// The model whose generations are fuzzed: tiny, lively, with a limit that few inputs reach.
#pragma once

#include <cstdlib>
#include <vector>

#include "covenant/model.h"

namespace covenant_fuzz {

inline cov_model* create(const cov_model_shape& shape) {
  std::vector<float> parameters(cov_parameter_count(&shape));
  if (cov_initial_parameters(&shape, 3, parameters.data(), parameters.size()).code != COV_OK)
    std::abort();
  for (float& p : parameters) p *= 10;
  cov_model_options options = {};
  options.parameters = parameters.data();
  options.parameter_count = parameters.size();
  options.threads = 1;
  options.memory_limit_bytes = 4 << 20;
  cov_model* model = nullptr;
  if (cov_model_create(&shape, &options, &model).code != COV_OK) std::abort();
  return model;
}

}  // namespace covenant_fuzz
