#include "generate/replay.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <deque>
#include <memory>
#include <vector>

#include "covenant/rng.h"
#include "engine/head.h"
#include "engine/isa/table.h"
#include "engine/model.h"
#include "generate/fingerprint.h"
#include "generate/sampler.h"

namespace covenant {
namespace {

// One completion token to check.
struct Position {
  int32_t request, index;
};

class Replay {
 public:
  Replay(const ReplayMachine& machine, const cov_replay_request* requests,
         const cov_replay_options& options, const cov_replay_output* outputs)
      : machine_(machine),
        requests_(requests),
        outputs_(outputs),
        vocab_(machine.shape.vocab_size),
        pool_(machine.pages, 0),
        fingerprint_(options.fingerprint, machine.shape.hidden_size,
                     static_cast<float>(machine.shape.rms_norm_eps)),
        samplers_(static_cast<size_t>(machine.threads.threads()), Sampler(vocab_)),
        normed_(samplers_.size(),
                std::vector<float>(static_cast<size_t>(machine.shape.hidden_size))) {}

  void run(int32_t count, const int32_t* cancel, const Share& share);

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
  void compare(const std::vector<Position>& positions);
  bool compare_row(const float* logits, const float* hidden, const Position& position);

  const ReplayMachine& machine_;
  const cov_replay_request* requests_;
  const cov_replay_output* outputs_;
  int64_t vocab_;
  PagePool pool_;
  DecoderRows rows_;
  std::deque<std::unique_ptr<Open>> open_;  // the last one may be there in part
  Fingerprint fingerprint_;
  // One per thread.
  std::vector<Sampler> samplers_;
  std::vector<std::vector<float>> normed_;
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

void Replay::run(int32_t count, const int32_t* cancel, const Share& share) {
  int32_t next = 0;
  while (next < count || !open_.empty()) {
    share.check_cancelled(cancel, "replay");
    int64_t rows = 0;
    for (const std::unique_ptr<Open>& open : open_)
      rows += static_cast<int64_t>(open->tokens.size()) - open->done;
    for (; next < count && rows < machine_.rows; ++next) {
      enter(next);
      rows += static_cast<int64_t>(open_.back()->tokens.size());
    }
    pass();
  }
}

// At most so many rows as are computed together, of the open requests in order.
void Replay::pass() {
  std::vector<Position> positions;
  rows_.clear();
  rows_.hidden = fingerprint_.dims() > 0;
  for (const std::unique_ptr<Open>& open : open_) {
    const int64_t length = static_cast<int64_t>(open->tokens.size());
    const int64_t count = std::min(length - open->done, machine_.rows - rows_.count());
    if (count == 0) break;
    const int64_t row = rows_.count(), start = open->done;
    rows_.add(open->tokens.data() + start, count, start, &open->pages);
    open->done += count;
    const int64_t first = requests_[open->request].prompt_length - 1;  // predicts the completion
    for (int64_t t = std::max(first, start); t < start + count; ++t) {
      rows_.drawn.push_back(row + t - start);
      positions.push_back({open->request, static_cast<int32_t>(t - first)});
    }
  }
  machine_.decoder.run(rows_);
  machine_.decoder.finish();
  compare(positions);
  while (!open_.empty() &&
         open_.front()->done == static_cast<int64_t>(open_.front()->tokens.size())) {
    open_.front()->pages.clear(pool_);
    open_.pop_front();
  }
}

void Replay::compare(const std::vector<Position>& positions) {
  const int64_t total = rows_.drawn_count(), chunk = machine_.decoder.logit_rows();
  std::atomic<bool> finite{true};
  for (int64_t from = 0; from < total; from += chunk) {
    const int64_t count = std::min(chunk, total - from);
    const float* logits = machine_.decoder.logits(from, count);
    machine_.threads.run(count, [&](int64_t i) {
      const float* hidden = rows_.hidden ? machine_.decoder.hidden(from + i) : nullptr;
      if (!compare_row(logits + i * vocab_, hidden, positions[static_cast<size_t>(from + i)]))
        finite.store(false, std::memory_order_relaxed);
    });
  }
  if (!finite.load()) throw Failure{cov_error(COV_NON_FINITE, "the logits are not finite")};
}

// False when the logits are not finite.
bool Replay::compare_row(const float* logits, const float* hidden, const Position& position) {
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

void replay_all(const ReplayMachine& machine, const cov_replay_request* requests, int32_t count,
                const cov_replay_options& options, const cov_replay_output* outputs,
                const Share& share) {
  Replay(machine, requests, options, outputs).run(count, options.cancel, share);
}

}  // namespace covenant
