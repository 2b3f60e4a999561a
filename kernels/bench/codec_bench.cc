// W1, W2: size and error of an update on real pseudo-gradients, those of the last of several rounds
// of a LLaMA of ten million parameters (bench/pseudo_gradients.h).
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "covenant/delta.h"
#include "covenant/sparse.h"
#include "policy_versions.h"
#include "pseudo_gradients.h"
#include "rows.h"

namespace {

using namespace covenant_bench;

// What goes around the body of an update: the protobuf header with hashes and signature.
constexpr double kHeaderBytes = 350;

// Squared error of the reference quantiser on the kept values of one tensor: shift = mean, bin =
// round((v - shift) / (6 sigma / 4) + 2) in 0..3, each bin decoded as the mean of its values.
double reference_error(const std::vector<double>& kept) {
  const auto count = static_cast<double>(kept.size());
  double mean = 0;
  for (const double value : kept) mean += value / count;
  double variance = 0;
  for (const double value : kept)
    variance += (value - mean) * (value - mean) / std::max(1.0, count - 1);
  const double step = 1.5 * std::sqrt(variance);
  if (step == 0) return 0;
  std::array<double, 4> sums{}, counts{};
  const auto bin = [&](double value) {
    return static_cast<size_t>(std::clamp(std::nearbyint((value - mean) / step + 2), 0.0, 3.0));
  };
  for (const double value : kept) {
    sums[bin(value)] += value;
    counts[bin(value)] += 1;
  }
  double error = 0;
  for (const double value : kept)
    error += std::pow(value - sums[bin(value)] / counts[bin(value)], 2);
  return error;
}

struct Outcome {
  double ratio;      // fp32 bytes / all bytes
  double error;      // squared error relative to the kept energy
  double reference;  // of the reference quantiser on the same values
};

Outcome measure(const PseudoGradient& gradient, int32_t mode) {
  const cov_sparse_format format{mode, 64};
  const auto count = static_cast<int32_t>(gradient.tensors.size());
  uint64_t bytes = 0, kept_max = 0;
  require(cov_sparse_size(gradient.tensors.data(), count, format, &bytes, &kept_max));
  std::vector<uint8_t> body(bytes);
  PseudoGradient own = gradient;
  const cov_sparse_source source = own.source();
  require(cov_sparse_compress(&source, own.tensors.data(), count, format, 0, body.data(), bytes));
  std::vector<uint32_t> indices(kept_max);
  std::vector<float> values(kept_max);
  uint64_t kept = 0;
  require(cov_sparse_decode(body.data(), bytes, own.tensors.data(), count, format, indices.data(),
                            values.data(), kept_max, &kept));
  double error = 0, energy = 0, reference = 0;
  uint64_t j = 0;
  for (const cov_tensor_info& tensor : own.tensors) {
    std::vector<double> originals;
    for (; j < kept && indices[j] < tensor.offset + tensor.length; ++j) {
      const size_t i = indices[j];
      const float a = std::fma(source.error_decay, gradient.error_feedback[i],
                               gradient.base[i] - gradient.current[i]);
      originals.push_back(a);
      error += std::pow(static_cast<double>(a) - static_cast<double>(values[j]), 2);
      energy += std::pow(static_cast<double>(a), 2);
    }
    reference += reference_error(originals);
  }
  return {4 * static_cast<double>(gradient.base.size()) /
              (static_cast<double>(bytes) + kHeaderBytes),
          error / energy, reference / energy};
}

void bench_updates(const Options& options, const TrainingRun& run,
                   const PseudoGradient& gradient) {
  char note[160];
  std::snprintf(note, sizeof note, "%.1f M parameters, round %d of %d inner steps, loss %.2f",
                1e-6 * static_cast<double>(gradient.base.size()), run.rounds, run.inner_steps,
                gradient.loss);
  for (const int32_t mode : {2, 1}) {
    const Outcome outcome = measure(gradient, mode);
    const std::string suffix = mode == 2 ? ".2bit" : ".1bit";
    print(options, {.id = "W1" + suffix,
                    .metric = "fp32 bytes to all bytes of an update",
                    .value = outcome.ratio,
                    .unit = "x",
                    .must = mode == 2 ? 200.0 : 220.0,
                    .aim = mode == 2 ? 210.0 : 235.0,
                    .note = std::string(note) + ", 350 bytes of header counted",
                    .judge_value = true});
    print(options, {.id = "W2" + suffix,
                    .metric = "squared error of what is sent",
                    .value = outcome.error,
                    .unit = "of energy",
                    .yardstick = "reference quantiser, 4 bins",
                    .yardstick_value = outcome.reference,
                    .ratio = outcome.error / outcome.reference,
                    .must = mode == 2 ? 0.1 : 0.15,
                    .aim = mode == 2 ? 0.05 : 0.1,
                    .note = note,
                    .lower_is_better = true});
  }
}

void bench_deltas(const Options& options, const TrainingRun& training,
                  const std::vector<float>& parameters, const std::vector<uint8_t>& text) {
  for (const float rate : {1e-7f, 1e-6f, 3e-4f}) {
    PolicyRun run;
    run.learning_rate = rate;
    if (options.quick) run.versions = 2;
    const PolicyVersions policy = policy_versions(training, parameters, run, text);
    const uint64_t count = policy.base.size();
    cov_bytes delta{};
    const double encode_s = best_s(0.2, [&] {
      cov_bytes_free(&delta);
      require(cov_delta_encode(policy.base.data(), policy.next.data(), count, 0, &delta));
    });
    cov_delta_info info;
    require(cov_delta_read(delta.data, delta.length, &info));
    std::vector<uint16_t> next(count);
    const double apply_s = best_s(0.2, [&] {
      require(cov_delta_apply(policy.base.data(), count, delta.data, delta.length, 0,
                              next.data()));
    });
    if (next != policy.next) {
      std::fprintf(stderr, "the delta does not lead to the next policy\n");
      std::exit(1);
    }
    char note[160], name[32];
    std::snprintf(note, sizeof note,
                  "%.2f %% of %.1f M weights changed, %d GRPO steps, learning rate %g",
                  100.0 * static_cast<double>(info.changed_count) / static_cast<double>(count),
                  1e-6 * static_cast<double>(count), run.steps, static_cast<double>(rate));
    std::snprintf(name, sizeof name, "W3.%g", static_cast<double>(rate));
    print(options, {.id = name,
                    .metric = "policy delta, all bytes per changed weight",
                    .value = static_cast<double>(delta.length) /
                             static_cast<double>(info.changed_count),
                    .unit = "B",
                    .must = 1.6,
                    .aim = 1.3,
                    .note = note,
                    .lower_is_better = true,
                    .judge_value = true});
    print(options, {.id = std::string(name) + ".encode",
                    .metric = "policy delta, weights encoded per second",
                    .value = 1e-6 * static_cast<double>(count) / encode_s,
                    .unit = "M/s"});
    print(options, {.id = std::string(name) + ".apply",
                    .metric = "policy delta, verified and applied per second",
                    .value = 1e-6 * static_cast<double>(count) / apply_s,
                    .unit = "M/s"});
    cov_bytes_free(&delta);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse(argc, argv);
  TrainingRun run;
  run.rounds = options.quick ? 2 : 4;
  run.inner_steps = options.quick ? 5 : 30;
  const std::vector<uint8_t> text = read_text(COVENANT_TEXT);
  const PseudoGradient gradient = pseudo_gradient(run, text);
  bench_updates(options, run, gradient);
  bench_deltas(options, run, gradient.current, text);
  return 0;
}
