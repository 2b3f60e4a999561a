#include "generate/call.h"

#include <algorithm>

namespace covenant {
namespace {

constexpr int32_t kStepRowsMax = 65536;
constexpr int32_t kRequestsDefault = 4096, kRequestsMax = 1 << 20;

// Writes events to the caller's buffers.
class Call {
 public:
  Call(const cov_generate_options& options, cov_generate_output* outputs, const Share& share)
      : options_(options), outputs_(outputs), share_(share) {}

  void take(const cov_generator_event& event) {
    // The generator numbers requests from 1 in the order of submission.
    const int64_t i = static_cast<int64_t>(event.request) - 1;
    const int32_t request = share_.first + static_cast<int32_t>(i);
    if (event.finish_reason == COV_FINISH_FAILED) {
      if (status_.code == COV_OK)
        status_ = cov_error(static_cast<cov_code>(event.status.code), "request %d: %.200s",
                            request, event.status.message);
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
      options_.on_token(options_.context, request, event.index, event.token, event.log_prob);
  }

  const cov_status& status() const { return status_; }

 private:
  const cov_generate_options& options_;
  cov_generate_output* outputs_;
  Share share_;
  cov_status status_ = cov_ok();
};

cov_status check_range(const char* name, int64_t value, int64_t max) {
  if (value >= 0 && value <= max) return cov_ok();
  return cov_error(COV_INVALID_ARGUMENT, "%s is %lld, must be in [0, %lld]", name,
                   static_cast<long long>(value), static_cast<long long>(max));
}

cov_status check_weights(int32_t weights) {
  if (weights >= COV_WEIGHTS_F32 && weights <= COV_WEIGHTS_INT8) return cov_ok();
  return cov_error(COV_INVALID_ARGUMENT, "weights is %d, no weight type", weights);
}

}  // namespace

void Share::check_cancelled(const int32_t* cancel, const char* what) const {
  if ((cancel != nullptr && __atomic_load_n(cancel, __ATOMIC_RELAXED) != 0) ||
      (stop != nullptr && stop->load(std::memory_order_relaxed)))
    throw Failure{cov_error(COV_CANCELLED, "%s was cancelled", what)};
}

int Share::threads() const { return std::max(1, default_thread_count() / of); }

cov_status check_generate_options(bool has_model, const cov_generate_request* requests,
                                  int32_t count, const cov_generate_options* options,
                                  const cov_generate_output* outputs) {
  if (!has_model || options == nullptr || count < 0 ||
      (count > 0 && (requests == nullptr || outputs == nullptr)))
    return cov_error(COV_INVALID_ARGUMENT, "model, requests, options and outputs must be given");
  if (options->fingerprint != nullptr &&
      (options->fingerprint->dims < 1 || options->fingerprint->dims > 64))
    return cov_error(COV_INVALID_ARGUMENT, "fingerprint dims must be in [1, 64]");
  const cov_status status = check_weights(options->weights);
  if (status.code != COV_OK) return status;
  return check_range("max_batch", options->max_batch, kBatchMax);
}

void check_generate_requests(const cov_model_shape& shape, const cov_generate_request* requests,
                             int32_t count, const cov_generate_options& options,
                             cov_generate_output* outputs) {
  for (int32_t i = 0; i < count; ++i) {
    check_request(shape, requests[i], options.top_count, i);
    if (outputs[i].tokens == nullptr)
      throw Failure{cov_error(COV_INVALID_ARGUMENT, "request %d needs a result buffer", i)};
    outputs[i].token_count = 0;
    outputs[i].finish_reason = COV_FINISH_LENGTH;
  }
}

void generate_all(const std::vector<Generator*>& generators, const cov_generate_request* requests,
                  int32_t count, const cov_generate_options& options, cov_generate_output* outputs,
                  const Share& share) {
  const auto parts = static_cast<int64_t>(generators.size());
  std::vector<Call> calls;
  std::vector<Generator::Listener> listeners;
  calls.reserve(generators.size());
  for (int64_t part = 0; part < parts; ++part) {
    Share own = share;
    const auto first = static_cast<int32_t>(count * part / parts);
    const auto after = static_cast<int32_t>(count * (part + 1) / parts);
    own.first += first;
    for (int32_t i = first; i < after; ++i)
      generators[static_cast<size_t>(part)]->submit(requests[i], options.fingerprint, options.top_count);
    Call* const call = &calls.emplace_back(options, outputs + first, own);
    listeners.emplace_back([call](const cov_generator_event& event) { call->take(event); });
  }
  const auto idle = [](const Generator* generator) { return generator->idle(); };
  std::vector<size_t> begun;
  while (!std::all_of(generators.begin(), generators.end(), idle)) {
    share.check_cancelled(options.cancel, "generation");
    begun.clear();
    for (size_t i = 0; i < generators.size(); ++i)
      if (generators[i]->begin(listeners[i])) begun.push_back(i);
    for (const size_t i : begun) generators[i]->end(listeners[i]);
    for (const Call& call : calls)
      if (call.status().code != COV_OK) throw Failure{call.status()};
  }
}

cov_status check_generator_options(bool has_model, const cov_generator_options* options,
                                   bool has_result) {
  if (!has_model || options == nullptr || !has_result)
    return cov_error(COV_INVALID_ARGUMENT, "model, options and the result pointer must be given");
  cov_status status = check_weights(options->weights);
  if (status.code == COV_OK) status = check_range("max_batch", options->max_batch, kBatchMax);
  if (status.code == COV_OK) status = check_range("step_rows", options->step_rows, kStepRowsMax);
  if (status.code == COV_OK && options->page_limit < 0)
    return cov_error(COV_INVALID_ARGUMENT, "page_limit must not be negative");
  if (status.code == COV_OK)
    status = check_range("request_limit", options->request_limit, kRequestsMax);
  return status;
}

GeneratorLimits limits_of(const cov_generator_options& options, int32_t step_rows) {
  return {options.max_batch == 0 ? kBatchDefault : options.max_batch,
          options.step_rows == 0 ? step_rows : options.step_rows, options.page_limit,
          options.request_limit == 0 ? kRequestsDefault : options.request_limit};
}

}  // namespace covenant
