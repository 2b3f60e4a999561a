// Replay: a prefill of prompt and completion that says what the bound sampler would have drawn at
// every completion position.
#include "generate/replay.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <deque>
#include <memory>

#include "covenant/rng.h"
#include "engine/head.h"
#include "engine/isa/table.h"
#include "generate/decoder.h"

namespace covenant {
namespace {

constexpr int64_t kReplayRows = 512;  // positions computed together

class Replay {
 public:
  Replay(cov_model& model, const GenerationWeights& weights, const cov_replay_request* requests,
         const cov_fingerprint_options* fingerprint, const cov_replay_output* outputs)
      : model_(model),
        requests_(requests),
        pool_(model.memory, model.layout.attention, model.layout.layers,
              weights.type() != COV_WEIGHTS_F32, 0),
        decoder_(model, weights, pool_),
        checks_(requests, fingerprint, outputs, model.layout.vocab, model.layout.d, model.eps(),
                model.pool.threads()) {}

  cov_status run(int32_t count, const int32_t* cancel);

 private:
  // A request that has entered the pass under way.
  struct Open {
    int32_t request;
    std::vector<int32_t> tokens;  // all that is fed: the last completion token is not
    int64_t done = 0;
    PageTable pages;
  };

  void enter(int32_t request);
  void pass();

  cov_model& model_;
  const cov_replay_request* requests_;
  PagePool pool_;
  Decoder decoder_;
  DecoderRows rows_;
  std::deque<std::unique_ptr<Open>> open_;  // the last one may be there in part
  ReplayChecks checks_;
};

void Replay::enter(int32_t request) {
  const cov_replay_request& r = requests_[request];
  auto open = std::make_unique<Open>();
  open->request = request;
  open->tokens.assign(r.prompt, r.prompt + r.prompt_length);
  open->tokens.insert(open->tokens.end(), r.completion, r.completion + r.completion_length - 1);
  if (!open->pages.reserve(pool_, 0, static_cast<int64_t>(open->tokens.size())))
    throw Failure{pool_.refusal()};
  open_.push_back(std::move(open));
}

cov_status Replay::run(int32_t count, const int32_t* cancel) {
  int32_t next = 0;
  while (next < count || !open_.empty()) {
    if (cancel != nullptr && __atomic_load_n(cancel, __ATOMIC_RELAXED) != 0)
      return cov_error(COV_CANCELLED, "replay was cancelled");
    int64_t rows = 0;
    for (const std::unique_ptr<Open>& open : open_)
      rows += static_cast<int64_t>(open->tokens.size()) - open->done;
    for (; next < count && rows < kReplayRows; ++next) {
      enter(next);
      rows += static_cast<int64_t>(open_.back()->tokens.size());
    }
    pass();
  }
  return cov_ok();
}

// At most kReplayRows rows of the open requests, in order.
void Replay::pass() {
  std::vector<ReplayPosition> checks;
  std::vector<int64_t> rows;
  rows_.clear();
  for (const std::unique_ptr<Open>& open : open_) {
    const int64_t length = static_cast<int64_t>(open->tokens.size());
    const int64_t count = std::min(length - open->done, kReplayRows - rows_.count());
    if (count == 0) break;
    const int64_t row = rows_.count(), start = open->done;
    rows_.add(open->tokens.data() + start, count, start, &open->pages);
    open->done += count;
    const int64_t first = requests_[open->request].prompt_length - 1;  // predicts the completion
    for (int64_t t = std::max(first, start); t < start + count; ++t) {
      rows.push_back(row + t - start);
      checks.push_back({open->request, static_cast<int32_t>(t - first)});
    }
  }
  decoder_.run(rows_);
  const int64_t total = static_cast<int64_t>(rows.size()), chunk = decoder_.logit_rows();
  std::atomic<bool> finite{true};
  for (int64_t from = 0; from < total; from += chunk) {
    const int64_t count = std::min(chunk, total - from);
    const float* logits = decoder_.logits(rows.data() + from, count);
    model_.pool.run(count, [&](int64_t i) {
      const size_t at = static_cast<size_t>(from + i);
      if (!checks_.finish(logits + i * model_.layout.vocab, decoder_.hidden(rows[at]), checks[at]))
        finite.store(false, std::memory_order_relaxed);
    });
  }
  if (!finite.load()) throw Failure{cov_error(COV_NON_FINITE, "the logits are not finite")};
  while (!open_.empty() &&
         open_.front()->done == static_cast<int64_t>(open_.front()->tokens.size())) {
    open_.front()->pages.clear(pool_);
    open_.pop_front();
  }
}

}  // namespace

void check_replay_requests(const cov_model_shape& shape, const cov_replay_request* requests,
                           int32_t count) {
  for (int32_t i = 0; i < count; ++i) {
    const cov_replay_request& r = requests[i];
    if (r.prompt == nullptr || r.completion == nullptr || r.prompt_length < 1 ||
        r.completion_length < 1)
      throw Failure{
          cov_error(COV_INVALID_ARGUMENT, "request %d needs a prompt and a completion", i)};
    if (int64_t{r.prompt_length} + r.completion_length > shape.max_positions)
      throw Failure{cov_error(COV_OUT_OF_RANGE,
                              "request %d: %d + %d tokens exceed max_positions %d", i,
                              r.prompt_length, r.completion_length, shape.max_positions)};
    check_sampling({r.temperature, r.top_k, r.top_p}, i);
    check_tokens(shape, r.prompt, r.prompt_length, "prompt token");
    check_tokens(shape, r.completion, r.completion_length, "completion token");
  }
}

cov_status check_replay_options(bool has_model, const cov_replay_request* requests, int32_t count,
                                const cov_replay_options* options,
                                const cov_replay_output* outputs) {
  if (!has_model || options == nullptr || count < 0 ||
      (count > 0 && (requests == nullptr || outputs == nullptr)))
    return cov_error(COV_INVALID_ARGUMENT, "model, requests, options and outputs must be given");
  const cov_fingerprint_options* fingerprint = options->fingerprint;
  if (fingerprint != nullptr && (fingerprint->dims < 1 || fingerprint->dims > 64))
    return cov_error(COV_INVALID_ARGUMENT, "fingerprint dims must be in [1, 64]");
  if (options->weights < COV_WEIGHTS_F32 || options->weights > COV_WEIGHTS_INT8)
    return cov_error(COV_INVALID_ARGUMENT, "weights is %d, no weight type", options->weights);
  return cov_ok();
}

ReplayChecks::ReplayChecks(const cov_replay_request* requests,
                           const cov_fingerprint_options* fingerprint,
                           const cov_replay_output* outputs, int64_t vocab, int64_t hidden,
                           float eps, int threads)
    : requests_(requests),
      outputs_(outputs),
      vocab_(vocab),
      fingerprint_(fingerprint, hidden, eps),
      samplers_(static_cast<size_t>(threads), Sampler(vocab)),
      normed_(samplers_.size(), std::vector<float>(static_cast<size_t>(hidden))) {}

bool ReplayChecks::finish(const float* logits, const float* hidden,
                          const ReplayPosition& position) {
  const cov_replay_request& r = requests_[position.request];
  const cov_replay_output& out = outputs_[position.request];
  const size_t worker = static_cast<size_t>(ThreadPool::worker());
  const int64_t at = position.index;
  const RowStats stats = kernels().logit_stats(logits, 1.0f, vocab_);
  const double lse = static_cast<double>(stats.max) + exact_log(static_cast<double>(stats.sum));
  if (!std::isfinite(lse)) return false;
  const double u = cov_uniform_at(r.sampling_seed, static_cast<uint32_t>(position.index));
  Sampler& sampler = samplers_[worker];
  sampler.prepare(logits, {r.temperature, r.top_k, r.top_p});
  if (out.drawn != nullptr) out.drawn[at] = sampler.draw(u);
  if (out.margin != nullptr) out.margin[at] = sampler.margin(r.completion[at], u);
  if (out.log_probs != nullptr)
    out.log_probs[at] = static_cast<float>(static_cast<double>(logits[r.completion[at]]) - lse);
  if (out.fingerprints != nullptr)
    fingerprint_.compute(hidden, normed_[worker].data(),
                         out.fingerprints + at * fingerprint_.dims());
  return true;
}

}  // namespace covenant

extern "C" cov_status cov_model_replay(cov_model* model, const cov_replay_request* requests,
                                       int32_t request_count, const cov_replay_options* options,
                                       const cov_replay_output* outputs) {
  const cov_status status = covenant::check_replay_options(model != nullptr, requests,
                                                           request_count, options, outputs);
  if (status.code != COV_OK) return status;
  return covenant::guarded([&] {
    covenant::check_replay_requests(model->shape, requests, request_count);
    const covenant::GenerationWeights& weights =
        covenant::packed_generation_weights(*model, options->weights);
    return covenant::Replay(*model, weights, requests, options->fingerprint, outputs)
        .run(request_count, options->cancel);
  });
}
