// What replays on all devices have in common: the checks of requests, and what is said of a position
// once its logits are there.
#pragma once

#include <cstdint>
#include <vector>

#include "core/thread_pool.h"
#include "generate/fingerprint.h"
#include "generate/sampler.h"

namespace covenant {

// Throws Failure.
void check_replay_requests(const cov_model_shape& shape, const cov_replay_request* requests,
                           int32_t count);

// COV_INVALID_ARGUMENT for missing arguments and options out of range.
cov_status check_replay_options(bool has_model, const cov_replay_request* requests, int32_t count,
                                const cov_replay_options* options,
                                const cov_replay_output* outputs);

// One completion token to check.
struct ReplayPosition {
  int32_t request, index;
};

// Writes the outputs of positions, on the threads of a pool, each with a sampler of its own.
class ReplayChecks {
 public:
  ReplayChecks(const cov_replay_request* requests, const cov_fingerprint_options* fingerprint,
               const cov_replay_output* outputs, int64_t vocab, int64_t hidden, float eps,
               int threads);

  // False when the logits are not finite. `hidden` is read only where there are fingerprints.
  bool finish(const float* logits, const float* hidden, const ReplayPosition& position);
  const Fingerprint& fingerprint() const { return fingerprint_; }

 private:
  const cov_replay_request* requests_;
  const cov_replay_output* outputs_;
  int64_t vocab_;
  Fingerprint fingerprint_;
  std::vector<Sampler> samplers_;
  std::vector<std::vector<float>> normed_;
};

}  // namespace covenant
