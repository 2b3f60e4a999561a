// Replay: prompts and completions go through the layers as generation computes them, in parts of
// bounded size over a cache; the host says what the sampler draws at each position.
#include <algorithm>
#include <atomic>
#include <cmath>

#include "engine/cache.cuh"
#include "engine/embedding.cuh"
#include "engine/generation_layers.cuh"
#include "engine/math.cuh"
#include "generate/replay.h"

namespace covenant::cuda {
namespace {

constexpr int64_t kRows = 2048;                    // computed together
constexpr int64_t kLogits = int64_t{32} << 20;     // on the device and the host at once
constexpr int32_t kNoCheck = -1;

class Replay {
 public:
  Replay(Model& model, const cov_replay_request* requests, int32_t count,
         const cov_replay_options& options, const cov_replay_output* outputs, const Share& share)
      : model_(model),
        requests_(requests),
        count_(count),
        options_(options),
        share_(share),
        pool_(share.threads()),
        weights_(model, options.weights, GenerationWeights::Keep::kView),
        layers_(weights_, rows_of(requests, count)),
        checks_(requests, options.fingerprint, outputs, model.layout().vocab, model.layout().d,
                model.eps(), pool_.threads()) {
    int64_t longest = 0;
    for (int32_t i = 0; i < count; ++i) longest = std::max(longest, length_of(i));
    if (longest > kCachePositionsMax)
      raise(COV_UNSUPPORTED, "a request of %lld positions; replay on a device takes %lld",
            static_cast<long long>(longest), static_cast<long long>(kCachePositionsMax));
    model.prepare_rope(longest);
  }

  void run() {
    for (int32_t first = 0; first < count_;) {
      const int32_t last = gather(first);
      for (size_t from = 0; from < tokens_.size(); from += kRows) {
        share_.check_cancelled(options_.cancel, "replay");
        compute(from, std::min<size_t>(kRows, tokens_.size() - from));
      }
      first = last;
    }
  }

 private:
  // Tokens that are fed: the last one of the completion is not.
  static int64_t length_of(const cov_replay_request& request) {
    return int64_t{request.prompt_length} + request.completion_length - 1;
  }
  int64_t length_of(int32_t request) const { return length_of(requests_[request]); }
  // Of one pass, at most.
  static int64_t rows_of(const cov_replay_request* requests, int32_t count) {
    int64_t rows = 0;
    for (int32_t i = 0; i < count && rows < kRows; ++i) rows += length_of(requests[i]);
    return std::min(rows, kRows);
  }

  // Lists the rows of requests [first, result): one request, or several that fit together.
  int32_t gather(int32_t first) {
    tokens_.clear();
    positions_.clear();
    slots_.clear();
    expected_.clear();
    capacity_ = 0;
    int32_t next = first;
    for (; next < count_; ++next) {
      const cov_replay_request& r = requests_[next];
      const int64_t length = length_of(next);
      if (next > first && static_cast<int64_t>(tokens_.size()) + length > kRows) break;
      for (int64_t t = 0; t < length; ++t) {
        tokens_.push_back(t < r.prompt_length ? r.prompt[t] : r.completion[t - r.prompt_length]);
        positions_.push_back(static_cast<int32_t>(t));
        slots_.push_back(next - first);
        const int64_t index = t - (r.prompt_length - 1);  // of the token it predicts
        expected_.push_back({next, index < 0 ? kNoCheck : static_cast<int32_t>(index)});
      }
      capacity_ = std::max(capacity_, length);
    }
    const Layout& l = model_.layout();
    layer_size_ = (next - first) * capacity_ * CacheLayer{l.attention, nullptr, 0}.position_size();
    const auto size = static_cast<uint64_t>(l.layers * layer_size_);
    if (cache_.count() < size) {
      model_.device().finish();  // the old one may still be read
      cache_ = Buffer<float>();
      cache_ = Buffer<float>(model_.device(), size);
    }
    return next;
  }

  void compute(size_t from, size_t rows) {
    Device& device = model_.device();
    const Layout& l = model_.layout();
    const auto count = static_cast<int64_t>(rows);
    const Arena::Scope scope(device.scratch());
    const auto put = [&](const int32_t* values, size_t length) {
      auto* const to = device.scratch().take<int32_t>(length);
      device.upload(to, values, length * sizeof(int32_t));
      return to;
    };
    const int32_t* const tokens = put(tokens_.data() + from, rows);
    const int32_t* const positions = put(positions_.data() + from, rows);
    const int32_t* const slots = put(slots_.data() + from, rows);
    int64_t longest = 0;
    std::vector<int32_t> scored;
    for (size_t i = 0; i < rows; ++i) {
      longest = std::max<int64_t>(longest, positions_[from + i] + 1);
      if (expected_[from + i].index != kNoCheck) scored.push_back(static_cast<int32_t>(i));
    }
    const int32_t* const index = put(scored.data(), scored.size());
    layers_.embed(tokens, count);
    layers_.forward(positions, count, [&](int64_t layer, const float* qkv, float* out) {
      const CacheLayer cache = {l.attention, cache_.data() + layer * layer_size_, capacity_};
      cache_append(device.stream(), cache, qkv, slots, positions, count);
      attention_cached(device.stream(), cache, qkv, slots, positions, count, longest, out);
    });
    const size_t chunk = static_cast<size_t>(std::clamp<int64_t>(kLogits / l.vocab, 1, kRows));
    for (size_t at = 0; at < scored.size(); at += chunk)
      check(from, scored.data() + at, index + at, std::min(chunk, scored.size() - at));
    device.finish();  // the lists are on their way
  }

  // Logits of rows by index (on both sides), and what is said of them.
  void check(size_t from, const int32_t* rows, const int32_t* index, size_t count) {
    Device& device = model_.device();
    const Layout& l = model_.layout();
    const Arena::Scope scope(device.scratch());
    const auto scored = static_cast<int64_t>(count);
    logits_.resize(count * static_cast<size_t>(l.vocab));
    auto* const logits = device.scratch().take<float>(logits_.size());
    layers_.logits(index, scored, logits);
    device.download(logits_.data(), logits, logits_.size() * sizeof(float));
    if (checks_.fingerprint().dims() > 0) {
      hidden_.resize(count * static_cast<size_t>(l.d));
      auto* const hidden = device.scratch().take<float>(hidden_.size());
      embed(device.stream(), layers_.x(), index, scored, l.d, hidden);
      device.download(hidden_.data(), hidden, hidden_.size() * sizeof(float));
    }
    device.finish();
    std::atomic<bool> finite{true};
    pool_.run(scored, [&](int64_t i) {
      const float* const hidden = hidden_.empty() ? nullptr : hidden_.data() + i * l.d;
      if (!checks_.finish(logits_.data() + i * l.vocab, hidden,
                          expected_[from + static_cast<size_t>(rows[i])]))
        finite.store(false, std::memory_order_relaxed);
    });
    if (!finite.load()) raise(COV_NON_FINITE, "the logits are not finite");
  }

  Model& model_;
  const cov_replay_request* requests_;
  int32_t count_;
  const cov_replay_options& options_;
  const Share& share_;
  ThreadPool pool_;
  GenerationWeights weights_;
  GenerationLayers layers_;
  ReplayChecks checks_;
  Buffer<float> cache_;
  // Of the requests under way, by row.
  std::vector<int32_t> tokens_, positions_, slots_;
  std::vector<ReplayPosition> expected_;  // what the row's logits are checked against
  int64_t capacity_ = 0, layer_size_ = 0;
  std::vector<float> logits_, hidden_;
};

}  // namespace

void Model::replay(const cov_replay_request* requests, int32_t count,
                   const cov_replay_options& options, const cov_replay_output* outputs, const Share& share) {
  if (count == 0) return;
  Replay replay(*this, requests, count, options, outputs, share);
  try {
    replay.run();
  } catch (...) {
    device_.finish();
    throw;
  }
}

}  // namespace covenant::cuda
