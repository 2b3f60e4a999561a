// Activation codecs between pipeline stages: throughput against the memory floor of what is read and
// written, bytes per value, and the error beside that of rounding to bf16.
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "covenant/activation.h"
#include "covenant/rng.h"
#include "limits.h"
#include "rows.h"

namespace {

using namespace covenant_bench;

constexpr int32_t kWidth = 2048;

struct Codec {
  int32_t kind;
  const char* name;
};
constexpr Codec kCodecs[] = {{COV_ACTIVATION_BF16, "bf16"},
                             {COV_ACTIVATION_INT8, "int8"},
                             {COV_ACTIVATION_INT4, "int4"}};

// Gaussian, but for a few channels that are thirty times as large, as in trained transformers.
std::vector<float> activations(int32_t rows) {
  std::vector<float> values(static_cast<size_t>(rows) * kWidth);
  uint8_t seed[32] = {7};
  std::vector<float> pattern(64 * kWidth);
  for (size_t i = 0; i < pattern.size(); ++i) {
    double sum = -6;
    for (uint32_t d = 0; d < 12; ++d) sum += cov_uniform_at(seed, static_cast<uint32_t>(12 * i) + d);
    pattern[i] = static_cast<float>(i % kWidth % 499 == 0 ? 30 * sum : sum);
  }
  for (size_t i = 0; i < values.size(); ++i) values[i] = pattern[i % pattern.size()];
  return values;
}

// Root of the squared error relative to the values' energy.
double relative_error(const std::vector<float>& values, const std::vector<float>& decoded) {
  double error = 0, energy = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    error += std::pow(static_cast<double>(values[i]) - static_cast<double>(decoded[i]), 2);
    energy += std::pow(static_cast<double>(values[i]), 2);
  }
  return std::sqrt(error / energy);
}

void bench(const Options& options, Codec codec, const std::vector<float>& values, int32_t rows,
           double& bf16_error) {
  const std::string id = std::string("activation.") + codec.name;
  uint64_t bytes = 0;
  require(cov_activation_size(codec.kind, rows, kWidth, &bytes));
  std::vector<uint8_t> payload(bytes);
  std::vector<float> decoded(values.size());
  for (const int threads : {1, 2}) {
    const auto encode = [&] {
      require(cov_activation_encode(codec.kind, values.data(), rows, kWidth, threads,
                                    payload.data(), bytes));
    };
    const auto decode = [&] {
      require(cov_activation_decode(codec.kind, payload.data(), bytes, rows, kWidth, threads,
                                    decoded.data()));
    };
    const double gigabytes =
        1e-9 * (static_cast<double>(bytes) + 4 * static_cast<double>(values.size()));
    double limit = 0, encode_s = 1e9, decode_s = 1e9;
    std::vector<double> encode_ratios, decode_ratios;
    for (int round = 0; round < (options.quick ? 2 : 5); ++round) {
      const double here = memory_gbps(threads, options);
      const double encoding = best_s(0.1, encode), decoding = best_s(0.1, decode);
      limit = std::max(limit, here);
      encode_s = std::min(encode_s, encoding);
      decode_s = std::min(decode_s, decoding);
      encode_ratios.push_back(gigabytes / encoding / here);
      decode_ratios.push_back(gigabytes / decoding / here);
    }
    const std::string suffix = ".t" + std::to_string(threads);
    print(options, {.id = id + ".encode" + suffix,
                    .metric = "activations encoded, share of what is read and written",
                    .value = gigabytes / encode_s,
                    .unit = "GB/s",
                    .yardstick = "memory floor from triad",
                    .yardstick_value = limit,
                    .ratio = median(encode_ratios)});
    print(options, {.id = id + ".decode" + suffix,
                    .metric = "activations checked and decoded, the same share",
                    .value = gigabytes / decode_s,
                    .unit = "GB/s",
                    .yardstick = "memory floor from triad",
                    .yardstick_value = limit,
                    .ratio = median(decode_ratios)});
  }
  const double error = relative_error(values, decoded);
  if (codec.kind == COV_ACTIVATION_BF16) bf16_error = error;
  char note[80];
  std::snprintf(note, sizeof note, "%.4f bytes a value",
                static_cast<double>(bytes) / static_cast<double>(values.size()));
  print(options, {.id = id + ".error",
                  .metric = "relative error, root of mean squares",
                  .value = error,
                  .unit = "",
                  .yardstick = "rounding to bf16",
                  .yardstick_value = bf16_error,
                  .ratio = error / bf16_error,
                  .note = note,
                  .lower_is_better = true});
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse(argc, argv);
  const int32_t rows = options.quick ? 2048 : 8192;
  const std::vector<float> values = activations(rows);
  double bf16_error = kNone;
  for (const Codec codec : kCodecs) bench(options, codec, values, rows, bf16_error);
  return 0;
}
