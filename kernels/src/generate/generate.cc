// cov_model_generate: all requests of a call through a generator that lives for the call.
#include <algorithm>
#include <memory>

#include "generate/generator.h"

namespace covenant {
namespace {

constexpr int32_t kBatchDefault = 32;
constexpr int32_t kBatchMax = 1024;
constexpr int32_t kStepRows = 512;

bool cancelled(const int32_t* flag) {
  return flag != nullptr && __atomic_load_n(flag, __ATOMIC_RELAXED) != 0;
}

// Writes events to the caller's buffers.
class Call {
 public:
  Call(const cov_generate_options& options, cov_generate_output* outputs)
      : options_(options), outputs_(outputs) {}

  void take(const cov_generator_event& event) {
    // The generator numbers requests from 1 in the order of submission.
    const int64_t i = static_cast<int64_t>(event.request) - 1;
    if (event.finish_reason == COV_FINISH_FAILED) {
      if (status_.code == COV_OK)
        status_ = cov_error(static_cast<cov_code>(event.status.code), "request %d: %.200s",
                            static_cast<int>(i), event.status.message);
      return;
    }
    cov_generate_output& out = outputs_[i];
    const int64_t at = event.index, tops = options_.top_count;
    out.tokens[at] = event.token;
    if (out.log_probs != nullptr) out.log_probs[at] = event.log_prob;
    if (out.fingerprints != nullptr && event.fingerprint != nullptr)
      std::copy_n(event.fingerprint, options_.fingerprint->dims,
                  out.fingerprints + at * options_.fingerprint->dims);
    if (out.top_tokens != nullptr && event.top_tokens != nullptr)
      std::copy_n(event.top_tokens, tops, out.top_tokens + at * tops);
    if (out.top_log_probs != nullptr && event.top_log_probs != nullptr)
      std::copy_n(event.top_log_probs, tops, out.top_log_probs + at * tops);
    out.token_count = event.index + 1;
    if (event.finish_reason == COV_FINISH_STOP) out.finish_reason = COV_FINISH_STOP;
    if (options_.on_token != nullptr)
      options_.on_token(options_.context, static_cast<int32_t>(i), event.index, event.token,
                        event.log_prob);
  }

  const cov_status& status() const { return status_; }

 private:
  const cov_generate_options& options_;
  cov_generate_output* outputs_;
  cov_status status_ = cov_ok();
};

cov_status generate(cov_model& model, const cov_generate_request* requests, int32_t count,
                    const cov_generate_options& options, cov_generate_output* outputs) {
  const int32_t batch = options.max_batch == 0 ? kBatchDefault : options.max_batch;
  if (batch < 1 || batch > kBatchMax)
    return cov_error(COV_INVALID_ARGUMENT, "max_batch is %d, must be in [0, %d]", batch, kBatchMax);
  for (int32_t i = 0; i < count; ++i) {
    check_request(model.shape, requests[i], options.top_count, i);
    if (outputs[i].tokens == nullptr)
      return cov_error(COV_INVALID_ARGUMENT, "request %d needs a result buffer", i);
    outputs[i].token_count = 0;
    outputs[i].finish_reason = COV_FINISH_LENGTH;
  }
  GenerationWeights& weights = packed_generation_weights(model, options.weights);
  Generator generator(model, weights, {batch, kStepRows, 0});
  for (int32_t i = 0; i < count; ++i)
    generator.submit(requests[i], options.fingerprint, options.top_count);
  Call call(options, outputs);
  const Generator::Listener listener = [&](const cov_generator_event& event) { call.take(event); };
  while (!generator.idle()) {
    if (cancelled(options.cancel)) return cov_error(COV_CANCELLED, "generation was cancelled");
    generator.step(listener);
    if (call.status().code != COV_OK) return call.status();
  }
  return cov_ok();
}

}  // namespace

GenerationWeights& packed_generation_weights(cov_model& model, int32_t type) {
  if (model.generation_weights == nullptr)
    model.generation_weights = std::make_shared<GenerationWeights>();
  model.generation_weights->pack(model, type);
  return *model.generation_weights;
}

}  // namespace covenant

extern "C" cov_status cov_model_generate(cov_model* model, const cov_generate_request* requests,
                                         int32_t request_count, const cov_generate_options* options,
                                         cov_generate_output* outputs) {
  if (model == nullptr || options == nullptr || request_count < 0 ||
      (request_count > 0 && (requests == nullptr || outputs == nullptr)))
    return cov_error(COV_INVALID_ARGUMENT, "model, requests, options and outputs must be given");
  if (options->fingerprint != nullptr &&
      (options->fingerprint->dims < 1 || options->fingerprint->dims > 64))
    return cov_error(COV_INVALID_ARGUMENT, "fingerprint dims must be in [1, 64]");
  if (options->weights < COV_WEIGHTS_F32 || options->weights > COV_WEIGHTS_INT8)
    return cov_error(COV_INVALID_ARGUMENT, "weights is %d, no weight type", options->weights);
  return covenant::guarded(
      [&] { return covenant::generate(*model, requests, request_count, *options, outputs); });
}
