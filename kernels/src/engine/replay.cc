// Replay: a prefill of prompt and completion that says what the bound sampler would have drawn at
// every completion position.
#include <algorithm>
#include <cmath>

#include "covenant/rng.h"
#include "engine/fingerprint.h"
#include "engine/head.h"
#include "engine/isa/table.h"
#include "engine/sampler.h"

namespace covenant {
namespace {

constexpr int64_t kReplayRows = 512;  // tokens computed together, unless one request is longer

// One completion token to check.
struct Position {
  int32_t request, index;
};

void check_requests(const cov_model& model, const cov_replay_request* requests, int32_t count) {
  for (int32_t i = 0; i < count; ++i) {
    const cov_replay_request& r = requests[i];
    if (r.prompt == nullptr || r.completion == nullptr || r.prompt_length < 1 ||
        r.completion_length < 1)
      throw Failure{
          cov_error(COV_INVALID_ARGUMENT, "request %d needs a prompt and a completion", i)};
    if (int64_t{r.prompt_length} + r.completion_length > model.shape.max_positions)
      throw Failure{cov_error(COV_OUT_OF_RANGE,
                              "request %d: %d + %d tokens exceed max_positions %d", i,
                              r.prompt_length, r.completion_length, model.shape.max_positions)};
    if (!sampler_options_valid({r.temperature, r.top_k, r.top_p}))
      throw Failure{cov_error(COV_INVALID_ARGUMENT,
                              "request %d: temperature must be 0 or in [1e-4, 1e4], top_k >= 0, "
                              "top_p in [0, 1]",
                              i)};
    check_tokens(model, r.prompt, r.prompt_length, "prompt token");
    check_tokens(model, r.completion, r.completion_length, "completion token");
  }
}

class Replay {
 public:
  Replay(cov_model& model, const cov_replay_request* requests,
         const cov_fingerprint_options* fingerprint, const cov_replay_output* outputs)
      : model_(model),
        requests_(requests),
        outputs_(outputs),
        fingerprint_(fingerprint, model.layout.d, model.eps()),
        samplers_(static_cast<size_t>(model.pool.threads()), Sampler(model.layout.vocab)),
        normed_(samplers_.size(), std::vector<float>(static_cast<size_t>(model.layout.d))) {}

  // Requests [first, last) in one prefill.
  void run(int32_t first, int32_t last);

 private:
  bool finish(const float* logits, const float* hidden, const Position& position);

  cov_model& model_;
  const cov_replay_request* requests_;
  const cov_replay_output* outputs_;
  Fingerprint fingerprint_;
  std::vector<Sampler> samplers_;
  std::vector<std::vector<float>> normed_;
};

void Replay::run(int32_t first, int32_t last) {
  const AttentionShape& shape = model_.layout.attention;
  std::vector<Segment> segments;
  std::vector<int32_t> tokens, positions;
  std::vector<Position> checks;
  std::vector<int64_t> rows;
  int64_t longest = 0;
  for (int32_t i = first; i < last; ++i) {
    const cov_replay_request& r = requests_[i];
    const int64_t row = static_cast<int64_t>(tokens.size());
    tokens.insert(tokens.end(), r.prompt, r.prompt + r.prompt_length);
    tokens.insert(tokens.end(), r.completion, r.completion + r.completion_length - 1);
    const int64_t count = static_cast<int64_t>(tokens.size()) - row;
    for (int64_t t = 0; t < count; ++t) positions.push_back(static_cast<int32_t>(t));
    segments.push_back({row, count});
    longest = std::max(longest, count);
    for (int32_t t = 0; t < r.completion_length; ++t) {
      rows.push_back(row + r.prompt_length - 1 + t);
      checks.push_back({i, t});
    }
  }
  const int64_t scratch_size = attention_scratch_size(shape, longest);
  float* scratch =
      model_.attention_scratch.reserve(model_.memory, scratch_size * model_.pool.threads());
  prepare_rope(model_, longest);
  model_.activations.reserve(model_.memory, model_.layout, static_cast<int64_t>(tokens.size()),
                             true);
  forward_layers(model_, tokens.data(), positions.data(), model_.activations,
                 [&](int64_t, const float* qkv, float* out, float*) {
                   attention(model_.pool, shape, segments.data(),
                             static_cast<int64_t>(segments.size()), qkv, out, nullptr, scratch,
                             scratch_size);
                 });
  HeadWork work(model_, model_.work.reserve(model_.memory, head_work_size(model_)));
  const int64_t total = static_cast<int64_t>(rows.size()), chunk = head_chunk_rows(model_);
  std::atomic<bool> finite{true};
  for (int64_t from = 0; from < total; from += chunk) {
    const int64_t count = std::min(chunk, total - from);
    head_logits(model_, model_.activations.last, rows.data() + from, count, work);
    model_.pool.run(count, [&](int64_t i) {
      const size_t at = static_cast<size_t>(from + i);
      if (!finish(work.logits + i * model_.layout.vocab,
                  model_.activations.last + rows[at] * model_.layout.d, checks[at]))
        finite.store(false, std::memory_order_relaxed);
    });
  }
  if (!finite.load()) throw Failure{cov_error(COV_NON_FINITE, "the logits are not finite")};
}

bool Replay::finish(const float* logits, const float* hidden, const Position& position) {
  const cov_replay_request& r = requests_[position.request];
  const cov_replay_output& out = outputs_[position.request];
  const size_t worker = static_cast<size_t>(ThreadPool::worker());
  const int64_t at = position.index;
  const RowStats stats = kernels().logit_stats(logits, 1.0f, model_.layout.vocab);
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
}  // namespace covenant

extern "C" cov_status cov_model_replay(cov_model* model, const cov_replay_request* requests,
                                       int32_t request_count,
                                       const cov_fingerprint_options* fingerprint,
                                       const int32_t* cancel, const cov_replay_output* outputs) {
  if (model == nullptr || request_count < 0 ||
      (request_count > 0 && (requests == nullptr || outputs == nullptr)))
    return cov_error(COV_INVALID_ARGUMENT, "model, requests and outputs must be given");
  if (fingerprint != nullptr && (fingerprint->dims < 1 || fingerprint->dims > 64))
    return cov_error(COV_INVALID_ARGUMENT, "fingerprint dims must be in [1, 64]");
  return covenant::guarded([&] {
    covenant::check_requests(*model, requests, request_count);
    covenant::pack_weights(*model, false);
    covenant::Replay replay(*model, requests, fingerprint, outputs);
    for (int32_t first = 0; first < request_count;) {
      if (cancel != nullptr && __atomic_load_n(cancel, __ATOMIC_RELAXED) != 0)
        return cov_error(COV_CANCELLED, "replay was cancelled");
      int64_t rows = 0;
      int32_t last = first;
      for (; last < request_count; ++last) {
        const int64_t more =
            int64_t{requests[last].prompt_length} + requests[last].completion_length;
        if (last > first && rows + more > covenant::kReplayRows) break;
        rows += more;
      }
      replay.run(first, last);
      first = last;
    }
    return cov_ok();
  });
}
