// What the calls that generate, replay and make generators have in common on all devices: checks of their
// arguments, and cov_model_generate itself over a generator that lives for the call.
#pragma once

#include <atomic>
#include <cstdint>

#include "generate/generator.h"

namespace covenant {

// Which of the requests of a call these are, where several models share them.
struct Share {
  int32_t first = 0;
  int32_t of = 1;                           // models that share the host's threads
  const std::atomic<bool>* stop = nullptr;  // another model has failed

  // Throws Failure with COV_CANCELLED; `what` was it.
  void check_cancelled(const int32_t* cancel, const char* what) const;
  int threads() const;
};

constexpr int32_t kBatchDefault = 32, kBatchMax = 1024;

cov_status check_generate_options(bool has_model, const cov_generate_request* requests,
                                  int32_t count, const cov_generate_options* options,
                                  const cov_generate_output* outputs);
// Checks the requests and empties the outputs. Throws Failure.
void check_generate_requests(const cov_model_shape& shape, const cov_generate_request* requests,
                             int32_t count, const cov_generate_options& options,
                             cov_generate_output* outputs);
inline int32_t batch_of(const cov_generate_options& options) {
  return options.max_batch == 0 ? kBatchDefault : options.max_batch;
}
// All requests through generators that are new and compute in turn; each gets some that follow each other.
// `requests` and `outputs` are the share's own. Throws Failure.
void generate_all(const std::vector<Generator*>& generators, const cov_generate_request* requests,
                  int32_t count, const cov_generate_options& options, cov_generate_output* outputs,
                  const Share& share);

// For the arguments of cov_generator_create.
cov_status check_generator_options(bool has_model, const cov_generator_options* options,
                                   bool has_result);
// `step_rows`: what 0 stands for.
GeneratorLimits limits_of(const cov_generator_options& options, int32_t step_rows);

}  // namespace covenant
