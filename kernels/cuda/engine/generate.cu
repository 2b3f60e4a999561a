// Generation: sequences are computed in turn, one row each, over a cache on the device; the host draws.
#include <algorithm>
#include <cmath>

#include "covenant/rng.h"
#include "engine/cache.cuh"
#include "engine/embedding.cuh"
#include "engine/head.h"
#include "engine/math.cuh"
#include "engine/model.cuh"
#include "engine/rmsnorm.cuh"
#include "generate/fingerprint.h"
#include "generate/sampler.h"

namespace covenant::cuda {
namespace {

constexpr int32_t kBatch = 32;
constexpr int64_t kStepRows = 2048;  // rows of one step; a longer prompt is a step of its own

struct Slot {
  int32_t request = -1;
  std::vector<int32_t> next;  // tokens that are not in the cache yet
  int32_t cached = 0;
};

class Generation {
 public:
  Generation(Model& model, const cov_generate_request* requests, int32_t count,
             const cov_generate_options& options, cov_generate_output* outputs)
      : model_(model),
        requests_(requests),
        count_(count),
        options_(options),
        outputs_(outputs),
        slots_(static_cast<size_t>(
            std::min(count, options.max_batch == 0 ? kBatch : options.max_batch))),
        sampler_(model.layout().vocab),
        order_(static_cast<size_t>(model.layout().vocab)),
        normed_(static_cast<size_t>(model.layout().d)),
        fingerprint_(options.fingerprint, model.layout().d, model.eps()) {
    const Layout& l = model.layout();
    for (int32_t i = 0; i < count; ++i)
      capacity_ = std::max<int64_t>(capacity_, requests[i].prompt_length + requests[i].max_new_tokens);
    if (capacity_ > kCachePositionsMax)
      raise(COV_UNSUPPORTED, "a request of %lld positions; generation on a device takes %lld",
            static_cast<long long>(capacity_), static_cast<long long>(kCachePositionsMax));
    layer_size_ = static_cast<int64_t>(slots_.size()) * capacity_ *
                  CacheLayer{l.attention, nullptr, 0}.position_size();
    cache_ = Buffer<float>(model.device(), static_cast<uint64_t>(l.layers * layer_size_));
    model.prepare(capacity_);
  }

  void run() {
    for (;;) {
      if (options_.cancel != nullptr && __atomic_load_n(options_.cancel, __ATOMIC_RELAXED) != 0)
        raise(COV_CANCELLED, "generation was cancelled");
      if (!gather()) return;
      compute();
      for (size_t i = 0; i < live_.size(); ++i) draw(*live_[i], i);
    }
  }

 private:
  // Fills free slots and lists the rows of the next step; false when everything is done.
  bool gather() {
    tokens_.clear();
    positions_.clear();
    rows_slots_.clear();
    last_.clear();
    live_.clear();
    longest_ = 0;
    for (size_t s = 0; s < slots_.size(); ++s) {
      Slot& slot = slots_[s];
      if (slot.request < 0 && next_request_ < count_) {
        const cov_generate_request& r = requests_[next_request_];
        slot = {next_request_++, {r.prompt, r.prompt + r.prompt_length}, 0};
      }
      if (slot.request < 0) continue;
      const int64_t added = static_cast<int64_t>(slot.next.size());
      if (!tokens_.empty() && static_cast<int64_t>(tokens_.size()) + added > kStepRows) continue;
      for (int32_t token : slot.next) {
        tokens_.push_back(token);
        positions_.push_back(slot.cached++);
        rows_slots_.push_back(static_cast<int32_t>(s));
      }
      longest_ = std::max<int64_t>(longest_, slot.cached);
      last_.push_back(static_cast<int32_t>(tokens_.size()) - 1);
      live_.push_back(&slot);
    }
    return !live_.empty();
  }

  // Runs the rows; leaves logits and hidden states of each sequence's last row.
  void compute() {
    Device& device = model_.device();
    const Layout& l = model_.layout();
    const int64_t rows = static_cast<int64_t>(tokens_.size());
    const int64_t drawn = static_cast<int64_t>(last_.size());
    activations_.reserve(device, l, std::max(rows, std::min<int64_t>(kBatch, count_)), true, true);
    const Arena::Scope scope(device.scratch());
    const auto put = [&](const std::vector<int32_t>& values) {
      int32_t* const to = device.scratch().take<int32_t>(values.size());
      device.upload(to, values.data(), values.size() * sizeof(int32_t));
      return to;
    };
    const int32_t* const tokens = put(tokens_);
    const int32_t* const positions = put(positions_);
    const int32_t* const slots = put(rows_slots_);
    const int32_t* const last = put(last_);
    embed(model_.stream(), model_.state(COV_PARAMETERS), tokens, rows, model_.layout().d,
          activations_.layers[0].x);
    model_.forward_layers(positions, rows, activations_,
                          [&](int64_t layer, const float* qkv, float* out, float*) {
                            const CacheLayer cache = {l.attention, cache_.data() + layer * layer_size_,
                                                      capacity_};
                            cache_append(device.stream(), cache, qkv, slots, positions, rows);
                            attention_cached(device.stream(), cache, qkv, slots, positions, rows,
                                             longest_, out);
                          });
    logits_.resize(static_cast<size_t>(drawn * l.vocab));
    hidden_.resize(static_cast<size_t>(drawn * l.d));
    float* const logits = device.scratch().take<float>(logits_.size());
    model_.logits(activations_.last, last, drawn, logits);
    device.download(logits_.data(), logits, logits_.size() * sizeof(float));
    if (fingerprint_.dims() > 0) {
      float* const hidden = device.scratch().take<float>(hidden_.size());
      embed(device.stream(), activations_.last, last, drawn, l.d, hidden);
      device.download(hidden_.data(), hidden, hidden_.size() * sizeof(float));
    }
    device.finish();
  }

  // The token of one sequence, with the CPU's own sampler: equal logits give equal draws.
  void draw(Slot& slot, size_t index) {
    const int64_t vocab = model_.layout().vocab;
    const cov_generate_request& r = requests_[slot.request];
    cov_generate_output& out = outputs_[slot.request];
    const float* const logits = logits_.data() + static_cast<int64_t>(index) * vocab;
    const RowStats stats = kernels().logit_stats(logits, 1.0f, vocab);
    const double lse = static_cast<double>(stats.max) + exact_log(static_cast<double>(stats.sum));
    if (!std::isfinite(lse)) raise(COV_NON_FINITE, "request %d: the logits are not finite", slot.request);
    const int64_t at = out.token_count++;
    sampler_.prepare(logits, {r.temperature, r.top_k, r.top_p});
    const int32_t token = sampler_.draw(cov_uniform_at(r.sampling_seed, static_cast<uint32_t>(at)));
    const float log_prob = static_cast<float>(static_cast<double>(logits[token]) - lse);
    out.tokens[at] = token;
    if (out.log_probs != nullptr) out.log_probs[at] = log_prob;
    const int64_t tops = options_.top_count;
    if (tops > 0)
      top_log_probs(logits, vocab, lse, 1.0f, options_.top_count, order_,
                    out.top_tokens == nullptr ? nullptr : out.top_tokens + at * tops,
                    out.top_log_probs == nullptr ? nullptr : out.top_log_probs + at * tops);
    if (out.fingerprints != nullptr && fingerprint_.dims() > 0)
      fingerprint_.compute(hidden_.data() + static_cast<int64_t>(index) * model_.layout().d,
                           normed_.data(), out.fingerprints + at * fingerprint_.dims());
    if (options_.on_token != nullptr)
      options_.on_token(options_.context, slot.request, static_cast<int32_t>(at), token, log_prob);
    slot.next = {token};
    const int32_t* const stops = r.stop_tokens;
    if (std::find(stops, stops + r.stop_token_count, token) != stops + r.stop_token_count) {
      out.finish_reason = COV_FINISH_STOP;
      slot.request = -1;
    } else if (out.token_count == r.max_new_tokens) {
      slot.request = -1;
    }
  }

  Model& model_;
  const cov_generate_request* requests_;
  int32_t count_;
  const cov_generate_options& options_;
  cov_generate_output* outputs_;
  std::vector<Slot> slots_;
  Sampler sampler_;
  std::vector<int32_t> order_;
  std::vector<float> normed_;
  Fingerprint fingerprint_;
  int32_t next_request_ = 0;
  int64_t capacity_ = 0, layer_size_ = 0, longest_ = 0;
  Buffer<float> cache_;
  Activations activations_;
  // Of the step.
  std::vector<int32_t> tokens_, positions_, rows_slots_, last_;
  std::vector<Slot*> live_;
  std::vector<float> logits_, hidden_;
};

}  // namespace

void Model::logits(const float* last, const int32_t* index, int64_t rows, float* out) {
  const Layout& l = layout_;
  const Arena::Scope scope(device_.scratch());
  const uint64_t size = static_cast<uint64_t>(rows * l.d);
  float* const r = device_.scratch().take<float>(static_cast<uint64_t>(rows));
  const Rows normed = bf16() ? Rows{nullptr, device_.scratch().take<uint16_t>(size)}
                             : Rows{device_.scratch().take<float>(size), nullptr};
  rmsnorm(stream(), last, index, state(COV_PARAMETERS) + l.final_norm, eps(), rows, l.d, normed, r);
  linear(normed, rows, l.head, l.vocab, l.d, nullptr, out);
}

void Model::generate(const cov_generate_request* requests, int32_t count,
                     const cov_generate_options& options, cov_generate_output* outputs) {
  if (count == 0) return;
  Generation generation(*this, requests, count, options, outputs);
  try {
    generation.run();
  } catch (...) {
    device_.finish();
    throw;
  }
}

}  // namespace covenant::cuda
