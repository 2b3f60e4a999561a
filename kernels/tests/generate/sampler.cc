// The distribution after top-p, which is found without sorting the vocabulary, against the full sort
// that defines it: the same tokens and margins for every u, on logits made to be difficult.
#include "generate/sampler.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <numeric>
#include <vector>

#include "../engine/support.h"
#include "engine/isa/table.h"
#include "generate/kernels.h"

using namespace covenant_test;

namespace {

// The definition in covenant/model.h word by word.
struct Sorted {
  std::vector<float> weights;
  double total = 0;

  Sorted(const std::vector<float>& logits, const covenant::SamplerOptions& options)
      : weights(logits.size()) {
    const int64_t vocab = static_cast<int64_t>(logits.size());
    const float max = covenant::generation_kernels().largest(logits.data(), vocab);
    covenant::kernels().sample_weights(logits.data(), max, 1.0f / options.temperature, vocab,
                                       weights.data());
    std::vector<size_t> order(logits.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
      return weights[a] != weights[b] ? weights[a] > weights[b] : a < b;
    });
    size_t count = options.top_k > 0 ? std::min<size_t>(order.size(), options.top_k) : order.size();
    if (options.top_p > 0 && options.top_p < 1) {
      double all = 0, sum = 0;
      for (size_t i = 0; i < count; ++i) all += static_cast<double>(weights[order[i]]);
      size_t kept = 0;
      for (; kept < count && (kept == 0 || sum < static_cast<double>(options.top_p) * all); ++kept)
        sum += static_cast<double>(weights[order[kept]]);
      count = kept;
    }
    for (size_t i = count; i < order.size(); ++i) weights[order[i]] = 0;
    for (const float weight : weights) total += static_cast<double>(weight);
  }
  int32_t draw(double u) const {
    double sum = 0;
    int32_t last = 0;
    for (size_t i = 0; i < weights.size(); ++i) {
      if (weights[i] == 0) continue;
      last = static_cast<int32_t>(i);
      sum += static_cast<double>(weights[i]);
      if (sum > u * total) break;
    }
    return last;
  }
  float margin(int32_t token, double u) const {
    double before = 0;
    for (int32_t i = 0; i < token; ++i) before += static_cast<double>(weights[static_cast<size_t>(i)]);
    const double low = before / total;
    const double high =
        (before + static_cast<double>(weights[static_cast<size_t>(token)])) / total;
    return u >= low && u < high ? static_cast<float>(std::min(u - low, high - u)) : 0.0f;
  }
};

enum class Kind { kNormal, kFlat, kEqual, kTies, kPeaked, kTiny, kCount };

std::vector<float> logits_of(Kind kind, size_t vocab, Numbers& numbers) {
  std::vector<float> logits(vocab);
  for (float& z : logits) {
    const float x = numbers.next() + numbers.next() + numbers.next();
    z = kind == Kind::kNormal   ? 3 * x
        : kind == Kind::kFlat   ? 1e-3f * x
        : kind == Kind::kEqual  ? 1.5f
        : kind == Kind::kTies   ? std::round(2 * x)
        : kind == Kind::kPeaked ? 60 * x
                                : -88 - 15 * std::fabs(x);  // weights that fade into zero
  }
  if (kind == Kind::kTiny) logits[static_cast<size_t>(numbers.below(int32_t(vocab)))] = 0;
  return logits;
}

void test_against_sort() {
  Numbers numbers(61);
  const float shares[] = {1e-30f, 1e-6f, 0.1f, 0.25f, 0.5f, 0.75f, 0.9f, 0.95f, 0.999f, 0.99999994f};
  int64_t compared = 0;
  for (const size_t vocab : {1, 2, 7, 8, 251, 1024, 5003})
    for (int kind = 0; kind < static_cast<int>(Kind::kCount); ++kind)
      for (const float temperature : {1.0f, 0.3f, 50.0f}) {
        const std::vector<float> logits = logits_of(static_cast<Kind>(kind), vocab, numbers);
        covenant::Sampler sampler(static_cast<int64_t>(vocab));
        for (const float share : shares)
          for (const int32_t top_k : {0, 5, 1 << 20}) {
            const covenant::SamplerOptions options = {temperature, top_k, share};
            const Sorted sorted(logits, options);
            sampler.prepare(logits.data(), options);
            for (int draw = 0; draw < 12; ++draw) {
              const double u = (numbers.word() + 0.5) * 0x1p-32;
              const int32_t token = sorted.draw(u);
              const int32_t other = numbers.below(static_cast<int32_t>(vocab));
              CHECK(sampler.draw(u) == token);
              CHECK(sampler.margin(token, u) == sorted.margin(token, u));
              CHECK(sampler.margin(other, u) == sorted.margin(other, u));
              ++compared;
            }
          }
      }
  std::printf("%lld draws compared\n", static_cast<long long>(compared));
}

// Tells how much faster than a sort it is; bounds nothing.
void print_speed() {
  Numbers numbers(62);
  const std::vector<float> logits = logits_of(Kind::kNormal, 32000, numbers);
  const covenant::SamplerOptions options = {1.0f, 0, 0.95f};
  covenant::Sampler sampler(32000);
  const auto time = [](const auto& body) {
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < 20; ++i) body();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() / 20;
  };
  double total = 0;
  const double sorted = time([&] { total += Sorted(logits, options).total; });
  const double found = time([&] { sampler.prepare(logits.data(), options); });
  CHECK(total > 0);
  std::printf("top-p of 32,000 logits: %.0f us, by sorting %.0f us\n", found * 1e6, sorted * 1e6);
}

}  // namespace

int main() {
  test_against_sort();
  print_speed();
  TEST_MAIN_END("generate/sampler");
}
