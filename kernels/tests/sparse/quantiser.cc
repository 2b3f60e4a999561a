// Squared quantisation error relative to the kept energy, on three distributions, beside the
// quantiser of the reference implementation (four bins over ±3 sigma of the kept values of a
// tensor, each decoded as its mean). Prints the table of kernels/README.md.
#include <algorithm>
#include <array>

#include "sparse/fixtures.h"

using namespace covenant_test;

namespace {

constexpr size_t kCount = 4096 * 100;

// The reference: bin = round(x / 1.5 sigma) + 2 clamped to 0..3, x centred on the mean.
double reference_error(const std::vector<float>& kept) {
  double mean = 0;
  for (const float value : kept) mean += value;
  mean /= static_cast<double>(kept.size());
  double variance = 0;
  for (const float value : kept) variance += (value - mean) * (value - mean);
  const double step = 1.5 * std::sqrt(variance / static_cast<double>(kept.size() - 1));
  std::array<double, 4> sum{};
  std::array<double, 4> count{};
  const auto bin_of = [&](float value) {
    return static_cast<size_t>(std::clamp(std::nearbyint((value - mean) / step + 2), 0.0, 3.0));
  };
  for (const float value : kept) {
    sum[bin_of(value)] += value;
    count[bin_of(value)] += 1;
  }
  double error = 0;
  double energy = 0;
  for (const float value : kept) {
    const size_t bin = bin_of(value);
    error += std::pow(value - sum[bin] / count[bin], 2);
    energy += std::pow(value, 2);
  }
  return error / energy;
}

struct Errors {
  double captured;
  double two_bit;
  double one_bit;
  double reference;
};

Errors measure(const std::vector<float>& values) {
  const auto tensors = table({kCount});
  Errors out{};
  for (const int32_t mode : {2, 1}) {
    const cov_sparse_format format{mode, 64};
    const auto packed = compress(tensors, format, values, zeros(kCount), zeros(kCount), 0);
    CHECK_OK(packed.status);
    const auto sent = decode(packed.body, tensors, format);
    std::vector<float> kept;
    double error = 0;
    double energy = 0;
    double all = 0;
    for (const float value : values) all += std::pow(value, 2);
    for (size_t j = 0; j < sent.indices.size(); ++j) {
      const float value = values[sent.indices[j]];
      kept.push_back(value);
      error += std::pow(value - sent.values[j], 2);
      energy += std::pow(value, 2);
    }
    (mode == 2 ? out.two_bit : out.one_bit) = error / energy;
    out.captured = energy / all;
    out.reference = reference_error(kept);
  }
  return out;
}

template <typename Draw>
Errors report(const char* name, const Draw& draw) {
  std::vector<float> values(kCount);
  for (float& value : values) value = static_cast<float>(draw());
  const Errors errors = measure(values);
  std::printf("| %s | %.1f %% | %.2f %% | %.2f %% | %.2f %% |\n", name, 100 * errors.captured,
              100 * errors.two_bit, 100 * errors.one_bit, 100 * errors.reference);
  return errors;
}

}  // namespace

int main() {
  Random random(5);
  std::printf(
      "| values | energy kept | 2 bits | 1 bit | reference, 2 bits |\n|---|---|---|---|---|\n");
  const Errors gaussian = report("Gaussian", [&] { return random.gaussian(); });
  const Errors laplace = report("Laplace", [&] { return random.laplace(); });
  const Errors student = report("Student t, 4 degrees", [&] {
    double square = 0;
    const double x = random.gaussian();
    for (int i = 0; i < 4; ++i) square += std::pow(random.gaussian(), 2);
    return x / std::sqrt(square / 4);
  });
  // The published analysis of the two-level code gives 0.42 %, 1.3 % and 5.6 %.
  CHECK(gaussian.two_bit < 0.0055);
  CHECK(laplace.two_bit < 0.015);
  CHECK(student.two_bit < 0.065);
  for (const Errors& errors : {gaussian, laplace, student}) {
    CHECK(errors.two_bit < errors.reference / 2);
    CHECK(errors.two_bit < errors.one_bit);
    CHECK(errors.one_bit < errors.reference * 1.1);
  }
  TEST_MAIN_END("sparse/quantiser");
}
