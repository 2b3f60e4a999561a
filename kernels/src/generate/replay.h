// Replay on all devices: prompts and completions go through a decoder in parts of bounded size, and each
// position is told what the bound sampler would have drawn there.
#pragma once

#include <cstdint>

#include "core/thread_pool.h"
#include "generate/call.h"
#include "generate/row_decoder.h"

namespace covenant {

// COV_INVALID_ARGUMENT for missing arguments and options out of range.
cov_status check_replay_options(bool has_model, const cov_replay_request* requests, int32_t count,
                                const cov_replay_options* options,
                                const cov_replay_output* outputs);
// Throws Failure.
void check_replay_requests(const cov_model_shape& shape, const cov_replay_request* requests,
                           int32_t count);

// Positions of a request that are fed: its last completion token is not.
inline int64_t replayed_positions(const cov_replay_request& request) {
  return int64_t{request.prompt_length} + request.completion_length - 1;
}

// What replays with.
struct ReplayMachine {
  const cov_model_shape& shape;
  ThreadPool& threads;
  RowDecoder& decoder;
  PageStore& pages;
  int64_t rows;  // positions computed together
};

// Throws Failure.
void replay_all(const ReplayMachine& machine, const cov_replay_request* requests, int32_t count,
                const cov_replay_options& options, const cov_replay_output* outputs,
                const Share& share);

}  // namespace covenant
