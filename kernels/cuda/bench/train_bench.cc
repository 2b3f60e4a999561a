// G3: share of the bf16 peak that a training step reaches (MFU). FLOP of a token = 6 N + 6 L T d, N the
// parameters in matrices with the head once and the embedding not at all; causal attention counts half,
// nothing is credited for computing twice.
#include <chrono>
#include <cstring>

#include "bench.h"
#include "covenant/device_model.h"
#include "covenant/rng.h"

namespace {

using namespace covenant_bench;
using covenant::cuda::require;

constexpr double kPeakH200 = 989e12;  // dense bf16 FLOP/s

double flop_per_token(const cov_model_shape& s, double length) {
  const double d = s.hidden_size, f = s.intermediate_size, layers = s.layer_count;
  const double kv = d / s.head_count * s.kv_head_count;
  const double matrices = layers * (2 * d * d + 2 * kv * d + 3 * f * d) + s.vocab_size * d;
  return 6 * matrices + 6 * layers * length * d;
}

// Seconds of one step, the median of a few.
double step_s(cov_device_model* model, const cov_batch& batch, int repeats) {
  const cov_adamw_options adamw = {1e-4f, 0.9f, 0.95f, 1e-8f, 0.1f, 1.0f};
  std::vector<double> times;
  for (int i = 0; i < repeats + 1; ++i) {
    const auto start = std::chrono::steady_clock::now();
    double loss = 0;
    require(cov_device_model_train_step(model, &batch, &adamw, &loss, nullptr));
    const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
    if (i > 0) times.push_back(time.count());  // the first one warms up
  }
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

// With the own products, or with those of cuBLASLt where it is found.
void run(const Options& options, bool vendor) {
  const Machine here = machine();
  // Parameters, gradients and moments, their bf16 copy, and 2 MB of activations for each of 16384 rows.
  const cov_model_shape shape = shape_for(here, options.quick, 50);
  const int32_t length = here.emulated ? 16 : 2048;
  const int32_t sequences = here.emulated ? 1 : 8;
  std::vector<int32_t> tokens(static_cast<size_t>(sequences) * static_cast<size_t>(length));
  for (size_t i = 0; i < tokens.size(); ++i)
    tokens[i] = static_cast<int32_t>(i * 2654435761u % static_cast<uint32_t>(shape.vocab_size));
  const cov_batch batch = {tokens.data(), tokens.data(), sequences, length};
  cov_device* device = nullptr;
  cov_device_model* model = nullptr;
  require(cov_device_open(0, 0, &device));
  const int32_t compute = vendor ? COV_COMPUTE_BF16 | COV_PRODUCTS_VENDOR : COV_COMPUTE_BF16;
  const cov_status created = cov_device_model_create(device, &shape, compute, &model);
  if (created.code == COV_UNSUPPORTED) {
    cov_device_close(device);
    std::fprintf(stderr, "G3 with cuBLASLt left out: %s\n", created.message);
    return;
  }
  require(created);
  std::vector<float> parameters(cov_parameter_count(&shape));
  require(cov_initial_parameters(&shape, 1, parameters.data(), parameters.size()));
  require(cov_device_model_write(model, COV_PARAMETERS, 0, parameters.size(), parameters.data()));
  const double seconds = step_s(model, batch, here.emulated ? 1 : 5);
  const double rate = static_cast<double>(tokens.size()) / seconds;
  cov_device_model_release(model);
  cov_device_close(device);
  Row row;
  row.id = "G3";
  row.metric = "bf16 training, Llama-3.2-1B shape, T 2048: tokens";
  row.metric += vendor ? ", products by cuBLASLt" : ", own products";
  row.value = rate;
  row.unit = "token/s";
  row.yardstick = "989 TFLOP/s of dense bf16";
  row.yardstick_value = kPeakH200 / flop_per_token(shape, length);
  row.ratio = row.value / row.yardstick_value;
  row.note = here.info.name;
  if (shape.layer_count != 16) row.note += ", " + std::to_string(shape.layer_count) + " layers";
  if (here.h200) {
    row.must = 0.50;
    row.aim = 0.63;
  } else if (here.emulated) {
    row.note += ": shows that it runs, no measurement";
  } else {
    row.note += "; the bounds are stated for an H200";
  }
  print(options, row);
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse(argc, argv);
  const cov_status status = covenant::cuda::guard([&] {
    for (const bool vendor : {false, true}) run(options, vendor);
  });
  if (status.code != COV_OK) std::fprintf(stderr, "%s\n", status.message);
  return status.code == COV_OK ? 0 : 1;
}
