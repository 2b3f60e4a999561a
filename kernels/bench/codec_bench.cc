// W1, W2: size and error of an update on real pseudo-gradients, those of the last of several rounds
// of a LLaMA of ten million parameters (bench/pseudo_gradients.h). W3: deltas between versions of a
// policy.
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

// What the values of a body take in bits when positions, signs and levels are independent of each
// other: log2 of the ways to choose the positions, a bit a sign, the entropy of the level in its tensor.
double independent_bits(const PseudoGradient& gradient, const std::vector<uint32_t>& indices,
                        const std::vector<float>& values, int32_t mode) {
  const auto log2_choose = [](double n, double m) {
    return (std::lgamma(n + 1) - std::lgamma(m + 1) - std::lgamma(n - m + 1)) / std::log(2.0);
  };
  double bits = static_cast<double>(indices.size());
  size_t j = 0;
  for (const cov_tensor_info& tensor : gradient.tensors) {
    double high = 0, kept = 0;
    for (uint64_t first = 0; first < tensor.length; first += COV_SPARSE_CHUNK) {
      const uint64_t n = std::min<uint64_t>(COV_SPARSE_CHUNK, tensor.length - first);
      const size_t start = j;
      float largest = 0, smallest = INFINITY;
      for (; j < indices.size() && indices[j] < tensor.offset + first + n; ++j) {
        largest = std::max(largest, std::fabs(values[j]));
        smallest = std::min(smallest, std::fabs(values[j]));
      }
      bits += log2_choose(static_cast<double>(n), static_cast<double>(j - start));
      for (size_t i = start; i < j; ++i)
        high += largest > smallest && std::fabs(values[i]) == largest;
      kept += static_cast<double>(j - start);
    }
    const double share = kept > 0 ? high / kept : 0;
    if (mode == 2 && share > 0 && share < 1)
      bits -= kept * (share * std::log2(share) + (1 - share) * std::log2(1 - share));
  }
  return bits;
}

struct Outcome {
  double body_ratio;    // fp32 bytes / all bytes when the body is sent as it is
  double packed_ratio;  // the same when it is packed
  double bits;          // of the packed form, per value sent
  double independent_bits;
  Compared pack, unpack;  // against compressing, on all threads
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
  const double dense = 4 * static_cast<double>(gradient.base.size());
  const auto all = [](uint64_t length) { return static_cast<double>(length) + kHeaderBytes; };
  Outcome out{};
  cov_bytes packed{};
  std::vector<uint8_t> again(bytes);
  const auto pack = [&] {
    cov_bytes_free(&packed);
    require(cov_sparse_pack(body.data(), bytes, own.tensors.data(), count, format, 0, &packed));
  };
  const auto unpack = [&] {
    require(cov_sparse_unpack(packed.data, packed.length, own.tensors.data(), count, format, 0,
                              again.data(), bytes));
  };
  const std::vector<uint8_t> first = body;
  pack();
  unpack();
  if (again != first) {
    std::fprintf(stderr, "the unpacked update is another one\n");
    std::exit(1);
  }
  out.body_ratio = dense / all(bytes);
  out.packed_ratio = dense / all(packed.length);
  out.bits = 8 * static_cast<double>(packed.length) / static_cast<double>(kept);
  indices.resize(kept);
  values.resize(kept);
  out.independent_bits =
      independent_bits(gradient, indices, values, mode) / static_cast<double>(kept);
  out.error = error / energy;
  out.reference = reference / energy;
  const auto compress = [&] {
    require(cov_sparse_compress(&source, own.tensors.data(), count, format, 0, body.data(), bytes));
  };
  out.pack = compare(9, pack, compress);
  out.unpack = compare(9, unpack, compress);
  cov_bytes_free(&packed);
  return out;
}

void print_sizes(const Options& options, const Outcome& outcome, int32_t mode,
                 const std::string& note) {
  const std::string id = mode == 2 ? "W1.2bit" : "W1.1bit";
  print(options, {.id = id,
                  .metric = "fp32 bytes to all bytes of a packed update",
                  .value = outcome.packed_ratio,
                  .unit = "x",
                  .must = mode == 2 ? 200.0 : 220.0,
                  .aim = mode == 2 ? 210.0 : 235.0,
                  .note = note + ", 350 bytes of header counted",
                  .judge_value = true});
  print(options, {.id = id + ".body",
                  .metric = "fp32 bytes to all bytes of an update as it is",
                  .value = outcome.body_ratio,
                  .unit = "x",
                  .note = note + ", 350 bytes of header counted"});
  print(options, {.id = id + ".entropy",
                  .metric = "packed update, all bits per value sent",
                  .value = outcome.bits,
                  .unit = "bit",
                  .yardstick = "independent positions, signs and levels",
                  .yardstick_value = outcome.independent_bits,
                  .ratio = outcome.bits / outcome.independent_bits,
                  .note = note,
                  .lower_is_better = true});
}

void print_speed(const Options& options, const std::string& id, const char* metric,
                 const Compared& times, size_t parameters) {
  const double millions = 1e-6 * static_cast<double>(parameters);
  print(options, {.id = id,
                  .metric = metric,
                  .value = millions / times.first_s,
                  .unit = "M/s",
                  .yardstick = "compressing the update",
                  .yardstick_value = millions / times.second_s,
                  .ratio = times.speedup});
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
    print_sizes(options, outcome, mode, note);
    print_speed(options, "W1" + suffix + ".pack", "packing, parameters per second", outcome.pack,
                gradient.base.size());
    print_speed(options, "W1" + suffix + ".unpack", "unpacking, parameters per second",
                outcome.unpack, gradient.base.size());
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
