// Generation: sequences are computed in turn, one row each, over a cache on the device; the host draws.
#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

#include "covenant/rng.h"
#include "core/thread_pool.h"
#include "engine/cache.cuh"
#include "engine/generation_step.cuh"
#include "engine/head.h"
#include "engine/math.cuh"
#include "engine/rmsnorm.cuh"
#include "generate/fingerprint.h"
#include "generate/sampler.h"

namespace covenant::cuda {
namespace {

constexpr int32_t kBatch = 32;
constexpr int64_t kSmallSampling = 1 << 13;  // logits not worth waking a thread for
constexpr int64_t kStepRows = 2048;  // rows of one step; a longer prompt is a step of its own

struct Slot {
  int32_t request = -1;
  std::vector<int32_t> next;  // tokens that are not in the cache yet
  int32_t cached = 0;
  // Of the step.
  int32_t token = 0;
  float log_prob = 0.0f;
};

// What steps of so many sequences at once can come to, in gather()'s way of filling them.
GenerationSize size_for(const cov_generate_request* requests, int32_t count, size_t slots, bool hidden) {
  std::vector<int64_t> prompts;
  int64_t positions = 0;
  for (int32_t i = 0; i < count; ++i) {
    prompts.push_back(requests[i].prompt_length);
    positions = std::max(positions, int64_t{requests[i].prompt_length} + requests[i].max_new_tokens);
  }
  if (positions > kCachePositionsMax)
    raise(COV_UNSUPPORTED, "a request of %lld positions; generation on a device takes %lld",
          static_cast<long long>(positions), static_cast<long long>(kCachePositionsMax));
  std::sort(prompts.begin(), prompts.end(), std::greater<>());
  const int64_t longest = prompts.front();
  prompts.resize(slots);
  const int64_t together = std::accumulate(prompts.begin(), prompts.end(), int64_t{0});
  return {static_cast<int64_t>(slots), positions, std::min(together, std::max(longest, kStepRows)), hidden};
}

class Generation {
 public:
  Generation(Model& model, const cov_generate_request* requests, int32_t count,
             const cov_generate_options& options, cov_generate_output* outputs, const Share& share)
      : model_(model),
        requests_(requests),
        count_(count),
        options_(options),
        outputs_(outputs),
        share_(share),
        slots_(static_cast<size_t>(
            std::min(count, options.max_batch == 0 ? kBatch : options.max_batch))),
        pool_(std::min(share.threads(), static_cast<int>(slots_.size()))),
        draws_(static_cast<size_t>(pool_.threads()), Draw(model.layout())),
        fingerprint_(options.fingerprint, model.layout().d, model.eps()),
        step_(model, size_for(requests, count, slots_.size(), fingerprint_.dims() > 0)) {}

  void run() {
    for (;;) {
      share_.check_cancelled(options_.cancel, "generation");
      if (!gather()) return;
      step_.run();
      draw();
    }
  }

 private:
  // Fills free slots and lists the rows of the next step; false when everything is done.
  bool gather() {
    step_.clear();
    live_.clear();
    for (size_t s = 0; s < slots_.size(); ++s) {
      Slot& slot = slots_[s];
      if (slot.request < 0 && next_request_ < count_) {
        const cov_generate_request& r = requests_[next_request_];
        slot = {next_request_++, {r.prompt, r.prompt + r.prompt_length}, 0};
      }
      if (slot.request < 0) continue;
      const int64_t added = static_cast<int64_t>(slot.next.size());
      if (step_.rows() > 0 && step_.rows() + added > kStepRows) continue;
      for (int32_t token : slot.next) step_.add_row(token, slot.cached++, static_cast<int32_t>(s));
      step_.end_sequence();
      live_.push_back(&slot);
    }
    return !live_.empty();
  }

  // Tokens of all sequences of the step, which do not depend on each other.
  void draw() {
    const auto count = static_cast<int64_t>(live_.size());
    pool_.run(
        count, [&](int64_t i) { draw_one(*live_[static_cast<size_t>(i)], i); },
        count * model_.layout().vocab > kSmallSampling);
    for (Slot* const slot : live_) finish(*slot);
  }

  // The token of one sequence, with the CPU's own sampler: equal logits give equal draws.
  void draw_one(Slot& slot, int64_t index) {
    Draw& draw = draws_[static_cast<size_t>(ThreadPool::worker())];
    const int64_t vocab = model_.layout().vocab;
    const cov_generate_request& r = requests_[slot.request];
    const cov_generate_output& out = outputs_[slot.request];
    const float* const logits = step_.logits(index);
    const RowStats stats = kernels().logit_stats(logits, 1.0f, vocab);
    const double lse = static_cast<double>(stats.max) + exact_log(static_cast<double>(stats.sum));
    slot.log_prob = NAN;
    if (!std::isfinite(lse)) return;
    const int64_t at = out.token_count;
    draw.sampler.prepare(logits, {r.temperature, r.top_k, r.top_p});
    slot.token = draw.sampler.draw(cov_uniform_at(r.sampling_seed, static_cast<uint32_t>(at)));
    slot.log_prob = static_cast<float>(static_cast<double>(logits[slot.token]) - lse);
    const int64_t tops = options_.top_count;
    if (tops > 0)
      top_log_probs(logits, vocab, lse, 1.0f, options_.top_count, draw.order,
                    out.top_tokens == nullptr ? nullptr : out.top_tokens + at * tops,
                    out.top_log_probs == nullptr ? nullptr : out.top_log_probs + at * tops);
    if (out.fingerprints != nullptr && fingerprint_.dims() > 0)
      fingerprint_.compute(step_.hidden(index), draw.normed.data(),
                           out.fingerprints + at * fingerprint_.dims());
  }

  // Tells of the token drawn, and sees whether the request has ended.
  void finish(Slot& slot) {
    const cov_generate_request& r = requests_[slot.request];
    cov_generate_output& out = outputs_[slot.request];
    const int32_t request = share_.first + slot.request;
    if (std::isnan(slot.log_prob)) raise(COV_NON_FINITE, "request %d: the logits are not finite", request);
    const int32_t at = out.token_count++;
    out.tokens[at] = slot.token;
    if (out.log_probs != nullptr) out.log_probs[at] = slot.log_prob;
    if (options_.on_token != nullptr)
      options_.on_token(options_.context, request, at, slot.token, slot.log_prob);
    slot.next = {slot.token};
    const int32_t* const stops = r.stop_tokens;
    if (std::find(stops, stops + r.stop_token_count, slot.token) != stops + r.stop_token_count) {
      out.finish_reason = COV_FINISH_STOP;
      slot.request = -1;
    } else if (out.token_count == r.max_new_tokens) {
      slot.request = -1;
    }
  }

  // What a thread needs to draw.
  struct Draw {
    explicit Draw(const Layout& l)
        : sampler(l.vocab), order(static_cast<size_t>(l.vocab)), normed(static_cast<size_t>(l.d)) {}
    Sampler sampler;
    std::vector<int32_t> order;
    std::vector<float> normed;
  };

  Model& model_;
  const cov_generate_request* requests_;
  int32_t count_;
  const cov_generate_options& options_;
  cov_generate_output* outputs_;
  const Share& share_;
  std::vector<Slot> slots_;
  ThreadPool pool_;
  std::vector<Draw> draws_;
  Fingerprint fingerprint_;
  GenerationStep step_;
  int32_t next_request_ = 0;
  std::vector<Slot*> live_;  // of the step, in the order of its sequences
};

}  // namespace

void Share::check_cancelled(const int32_t* cancel, const char* what) const {
  if ((cancel != nullptr && __atomic_load_n(cancel, __ATOMIC_RELAXED) != 0) ||
      (stop != nullptr && stop->load(std::memory_order_relaxed)))
    raise(COV_CANCELLED, "%s was cancelled", what);
}

int Share::threads() const { return std::max(1, default_thread_count() / of); }

void Model::logits(const Activations& a, const int32_t* index, int64_t rows, float* out) {
  const Layout& l = layout_;
  // No layer is under way, so there is room for the norm.
  const Activations::Layer& free = a.layers.front();
  rmsnorm(stream(), a.last, index, state(COV_PARAMETERS) + l.final_norm, eps(), rows, l.d, free.n1, free.r1);
  linear(free.n1, rows, l.head, l.vocab, l.d, nullptr, out);
}

void Model::generate(const cov_generate_request* requests, int32_t count,
                     const cov_generate_options& options, cov_generate_output* outputs,
                     const Share& share) {
  if (count == 0) return;
  Generation generation(*this, requests, count, options, outputs, share);
  try {
    generation.run();
  } catch (...) {
    device_.finish();
    throw;
  }
}

}  // namespace covenant::cuda
