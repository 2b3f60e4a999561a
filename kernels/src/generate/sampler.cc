// Inverse transform sampling in token order with double sums.
#include "generate/sampler.h"

#include <algorithm>
#include <bit>
#include <numeric>

#include "engine/isa/table.h"
#include "engine/memory.h"
#include "generate/kernels.h"

namespace covenant {

void check_sampling(const SamplerOptions& o, int32_t request) {
  const bool temperature =
      o.temperature == 0.0f || (o.temperature >= 1e-4f && o.temperature <= 1e4f);
  if (temperature && o.top_k >= 0 && o.top_p >= 0.0f && o.top_p <= 1.0f) return;
  throw Failure{cov_error(COV_INVALID_ARGUMENT,
                          "request %d: temperature must be 0 or in [1e-4, 1e4], top_k >= 0, "
                          "top_p in [0, 1]",
                          request)};
}

namespace {

// Weights are in [0, 1]. Those of a bucket agree in sign, exponent and the four bits after it, so
// that buckets have the order of their weights and a small share of them each.
constexpr int kBucketShift = 19;
constexpr uint32_t kBuckets = (0x3f800000u >> kBucketShift) + 1;

uint32_t bucket_of(float weight) {
  return std::min(std::bit_cast<uint32_t>(weight) >> kBucketShift, kBuckets - 1);
}

}  // namespace

Sampler::Sampler(int64_t vocab)
    : vocab_(vocab),
      weights_(static_cast<size_t>(vocab)),
      order_(static_cast<size_t>(vocab)),
      buckets_(kBuckets) {}

void Sampler::prepare(const float* logits, const SamplerOptions& options) {
  logits_ = logits;
  greedy_ = options.temperature == 0.0f;
  if (greedy_) return;
  const float max = generation_kernels().largest(logits, vocab_);
  kernels().sample_weights(logits, max, 1.0f / options.temperature, vocab_, weights_.data());
  const bool top_p = options.top_p > 0.0f && options.top_p < 1.0f;
  const bool top_k = options.top_k > 0 && options.top_k < vocab_;
  if (top_k || (top_p && !keep_top_p(options.top_p))) keep_largest(options);
  total_ = 0.0;
  for (float weight : weights_) total_ += static_cast<double>(weight);
}

// Zeroes the weights outside top-p and says true; or says false and changes nothing, where it takes
// the order of all weights to tell. Sums of weights here and in keep_largest, which adds in that
// order, differ by rounding only; the cut is the same unless the share wanted is as near to one of
// them as that.
bool Sampler::keep_top_p(float top_p) {
  std::fill(buckets_.begin(), buckets_.end(), 0.0);
  for (const float weight : weights_) buckets_[bucket_of(weight)] += static_cast<double>(weight);
  double total = 0.0;
  for (uint32_t b = kBuckets; b-- > 0;) total += buckets_[b];
  const double wanted = static_cast<double>(top_p) * total;
  const double rounding = 3.0 * static_cast<double>(vocab_) * 0x1p-52 * wanted;
  // The bucket in which the sum reaches the share, and the sum above it.
  uint32_t cut = kBuckets - 1;
  double sum = 0.0;
  while (cut > 0 && sum + buckets_[cut] < wanted) sum += buckets_[cut--];
  int64_t count = 0;
  for (int64_t i = 0; i < vocab_; ++i)
    if (bucket_of(weights_[static_cast<size_t>(i)]) == cut)
      order_[static_cast<size_t>(count++)] = static_cast<int32_t>(i);
  const auto larger = [this](int32_t a, int32_t b) {
    const float x = weights_[static_cast<size_t>(a)], y = weights_[static_cast<size_t>(b)];
    return x != y ? x > y : a < b;
  };
  std::sort(order_.begin(), order_.begin() + count, larger);
  const bool any_above = sum > 0.0;
  double before = sum;
  int64_t kept = 0;
  while (kept < count && sum < wanted) {
    before = sum;
    sum += static_cast<double>(weights_[static_cast<size_t>(order_[static_cast<size_t>(kept++)])]);
  }
  if (kept == 0 || sum < wanted + rounding) return false;
  if ((kept > 1 || any_above) && before > wanted - rounding) return false;
  for (int64_t i = kept; i < count; ++i)
    weights_[static_cast<size_t>(order_[static_cast<size_t>(i)])] = 0.0f;
  for (float& weight : weights_)
    if (bucket_of(weight) < cut) weight = 0.0f;
  return true;
}

// Zeroes the weights outside top-k and top-p.
void Sampler::keep_largest(const SamplerOptions& options) {
  std::iota(order_.begin(), order_.end(), 0);
  const int64_t count = options.top_k > 0 ? std::min<int64_t>(options.top_k, vocab_) : vocab_;
  std::partial_sort(order_.begin(), order_.begin() + count, order_.end(),
                    [this](int32_t a, int32_t b) {
                      const float x = weights_[static_cast<size_t>(a)];
                      const float y = weights_[static_cast<size_t>(b)];
                      return x != y ? x > y : a < b;
                    });
  int64_t kept = count;
  if (options.top_p > 0.0f && options.top_p < 1.0f) {
    double total = 0.0;
    for (int64_t i = 0; i < count; ++i)
      total += static_cast<double>(weights_[static_cast<size_t>(order_[static_cast<size_t>(i)])]);
    const double wanted = static_cast<double>(options.top_p) * total;
    double sum = 0.0;
    for (kept = 0; kept < count && (kept == 0 || sum < wanted); ++kept)
      sum += static_cast<double>(weights_[static_cast<size_t>(order_[static_cast<size_t>(kept)])]);
  }
  for (size_t i = static_cast<size_t>(kept); i < order_.size(); ++i)
    weights_[static_cast<size_t>(order_[i])] = 0.0f;
}

int32_t Sampler::draw(double u) const {
  if (greedy_) return static_cast<int32_t>(std::max_element(logits_, logits_ + vocab_) - logits_);
  const double target = u * total_;
  double sum = 0.0;
  int32_t last = 0;
  for (int64_t i = 0; i < vocab_; ++i) {
    const float weight = weights_[static_cast<size_t>(i)];
    if (weight == 0.0f) continue;
    last = static_cast<int32_t>(i);
    sum += static_cast<double>(weight);
    if (sum > target) return last;
  }
  return last;  // u * total rounded up to total
}

float Sampler::margin(int32_t token, double u) const {
  if (greedy_) {
    if (draw(u) != token) return 0.0f;
    bool first = true;
    float second = 0.0f;
    for (int64_t i = 0; i < vocab_; ++i) {
      if (i == token || (!first && logits_[i] <= second)) continue;
      second = logits_[i];
      first = false;
    }
    return logits_[token] - second;
  }
  double before = 0.0;
  for (int32_t i = 0; i < token; ++i)
    before += static_cast<double>(weights_[static_cast<size_t>(i)]);
  const double low = before / total_;
  const double high = (before + static_cast<double>(weights_[static_cast<size_t>(token)])) / total_;
  return u >= low && u < high ? static_cast<float>(std::min(u - low, high - u)) : 0.0f;
}

}  // namespace covenant
