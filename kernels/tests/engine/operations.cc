// Operations against double precision on every CPU path: SwiGLU, sums, softmax backward, logits,
// sampling weights, AdamW with clipping, fingerprints. Products, norms, softmax and rotary positions
// are in kernels.cc, attention and all backwards in gradient.cc, generation in ../generate/kernels.cc.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "engine/head.h"
#include "engine/isa/table.h"
#include "generate/fingerprint.h"
#include "support.h"

using namespace covenant_test;
using covenant::KernelTable;
using covenant::kernels;

namespace {

using Values = std::vector<float>;

double sum_of(const std::vector<double>& terms) {
  return std::accumulate(terms.begin(), terms.end(), 0.0);
}

void rows(int64_t n) {
  const KernelTable& kernel = kernels();
  Numbers numbers(static_cast<uint32_t>(n));
  const auto size = static_cast<size_t>(n);
  const Values a = numbers.floats(n, 5), b = numbers.floats(n, 2), c = numbers.floats(n);
  Values h(size), sum = b, s = a, dp = b;
  kernel.swiglu(a.data(), b.data(), n, h.data());
  kernel.add(a.data(), n, sum.data());
  std::vector<double> dot(size), square(size), weight(size);
  double magnitude = 0;
  for (size_t i = 0; i < size; ++i) {
    const double x = a[i], y = b[i];
    CHECK_NEAR(h[i], x / (1 + std::exp(-x)) * y, 2e-6 * (1 + std::fabs(x * y)));
    CHECK(sum[i] == a[i] + b[i]);
    dot[i] = x * y;
    square[i] = x * x;
    magnitude += std::fabs(x * y);
  }
  CHECK_NEAR(kernel.dot(a.data(), b.data(), n), sum_of(dot), 1e-6 * (1 + magnitude));
  CHECK_NEAR(kernel.square_sum(a.data(), n), sum_of(square), 1e-6 * sum_of(square));

  constexpr double kScale = 0.4;
  for (size_t i = 0; i < size; ++i) weight[i] = std::exp(kScale * a[i]);
  const double total = sum_of(weight);
  double delta = 0;
  for (size_t i = 0; i < size; ++i) delta += weight[i] / total * b[i];
  s.resize(size + 3, 9.0f);
  dp.resize(size + 3, 9.0f);
  kernel.softmax_backward(s.data(), dp.data(), static_cast<float>(kScale),
                          static_cast<float>(std::log(total)), static_cast<float>(delta), n, n + 3,
                          s.data(), dp.data());
  for (size_t i = 0; i < size; ++i) {
    CHECK_NEAR(s[i], weight[i] / total, 2e-6);
    CHECK_NEAR(dp[i], weight[i] / total * (b[i] - delta) * kScale, 4e-6);
  }
  for (size_t i = size; i < size + 3; ++i) CHECK(s[i] == 0.0f && dp[i] == 0.0f);
}

void logits(int64_t n) {
  const KernelTable& kernel = kernels();
  Numbers numbers(static_cast<uint32_t>(7 * n));
  const auto size = static_cast<size_t>(n);
  const Values z = numbers.floats(n, 6);
  constexpr float kInverse = 1.25f, kCoefficient = -0.6f;
  const covenant::RowStats stats = kernel.logit_stats(z.data(), kInverse, n);
  const double most = static_cast<double>(*std::max_element(z.begin(), z.end())) * kInverse;
  double sum = 0, dot = 0;
  for (const float v : z) {
    const double shifted = static_cast<double>(v) * kInverse - most;
    sum += std::exp(shifted);
    dot += std::exp(shifted) * shifted;
  }
  CHECK_NEAR(stats.max, most, 1e-6 * (1 + std::fabs(most)));
  CHECK_NEAR(stats.sum, sum, 2e-6 * sum);
  const double entropy = std::log(sum) - dot / sum;
  CHECK_NEAR(std::log(stats.sum) - stats.dot / stats.sum, entropy, 1e-5);
  Values gradient = z, weights(size);
  const double lse = most + std::log(sum);
  kernel.logit_gradient(gradient.data(), kInverse, static_cast<float>(lse), kCoefficient, n / 2, n,
                        gradient.data());
  const float highest = *std::max_element(z.begin(), z.end());
  kernel.sample_weights(z.data(), highest, kInverse, n, weights.data());
  for (size_t i = 0; i < size; ++i) {
    const double p = std::exp(static_cast<double>(z[i]) * kInverse - lse);
    const double target = i == size / 2 ? 1 : 0;
    CHECK_NEAR(gradient[i], kCoefficient * (target - p), 3e-6);
    CHECK_NEAR(weights[i], std::exp((static_cast<double>(z[i]) - highest) * kInverse), 2e-6);
  }
}

// Four steps of a model against AdamW as it is written down; the last gradient is clipped.
void adamw() {
  const cov_model_shape shape = tiny_shape();
  const Values initial = lively_parameters(shape, 9);
  constexpr cov_adamw_options kOptions = {3e-2f, 0.9f, 0.95f, 1e-8f, 0.1f, 2.0f};
  std::vector<cov_tensor_info> tensors(static_cast<size_t>(cov_tensor_count(&shape)));
  CHECK_OK(cov_tensor_table(&shape, tensors.data(), static_cast<int32_t>(tensors.size())));
  TestModel model(shape, initial, 2);
  std::vector<double> p(initial.begin(), initial.end()), m(p.size()), v(p.size());
  Numbers numbers(10);
  for (int step = 1; step <= 4; ++step) {
    const Values gradient = numbers.floats(static_cast<int64_t>(p.size()), step == 4 ? 1.0f : 1e-3f);
    std::copy(gradient.begin(), gradient.end(), model.buffer(COV_GRADIENTS));
    float norm = 0;
    CHECK_OK(cov_model_optimizer_step(model, &kOptions, &norm));
    double square = 0;
    for (const float g : gradient) square += static_cast<double>(g) * g;
    CHECK_NEAR(norm, std::sqrt(square), 1e-5 * std::sqrt(square));
    const double clip = std::min(1.0, 2.0 / (std::sqrt(square) + 1e-6));
    CHECK((clip < 1) == (step == 4));
    for (const cov_tensor_info& tensor : tensors)
      for (size_t i = tensor.offset; i < tensor.offset + tensor.length; ++i) {
        const double g = clip * gradient[i];
        m[i] = 0.9 * m[i] + 0.1 * g;
        v[i] = 0.95 * v[i] + 0.05 * g * g;
        if (tensor.rank == 2) p[i] *= 1 - 3e-2 * 0.1;
        p[i] -= 3e-2 * (m[i] / (1 - std::pow(0.9, step))) /
                (std::sqrt(v[i] / (1 - std::pow(0.95, step))) + 1e-8);
      }
  }
  const float* own = model.buffer(COV_PARAMETERS);
  for (size_t i = 0; i < p.size(); ++i) CHECK_NEAR(own[i], p[i], 2e-6 * (1 + std::fabs(p[i])));
}

void fingerprints() {
  constexpr int64_t kHidden = 52;
  constexpr float kEps = 1e-5f;
  cov_fingerprint_options options = {{3, 1, 4}, 64};
  const covenant::Fingerprint fingerprint(&options, kHidden, kEps);
  Numbers numbers(11);
  for (int round = 0; round < 20; ++round) {
    const Values h = numbers.floats(kHidden, 4);
    Values normed(kHidden);
    int8_t out[64];
    fingerprint.compute(h.data(), normed.data(), out);
    double square = 0;
    for (const float x : h) square += static_cast<double>(x) * x;
    const double r = 1 / std::sqrt(square / kHidden + kEps);
    for (uint32_t dim = 0; dim < 64; ++dim) {
      double p = 0;
      for (uint32_t i = 0; i < kHidden; ++i)
        p += cov_fingerprint_sign(options.seed, dim, i) * (h[i] * r);
      const double value = std::clamp(16 * p / std::sqrt(double{kHidden}), -128.0, 127.0);
      CHECK(std::fabs(out[dim] - value) <= 0.5 + 1e-4);
    }
  }
}

}  // namespace

int main() {
  for (const std::string& path : available_paths()) {
    CHECK_OK(cov_set_cpu_path(path.c_str()));
    for (const int64_t n : {1, 2, 3, 7, 16, 17, 31, 33, 101, 499}) {
      rows(n);
      logits(n);
    }
    adamw();
    fingerprints();
  }
  CHECK_OK(cov_set_cpu_path(nullptr));
  TEST_MAIN_END("engine/operations");
}
