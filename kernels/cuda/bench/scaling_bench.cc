// What several devices make of a training step: tokens a second of N replicas and of N stages, of the model
// and of adapters, beside N times one device. Every device gets the batch that one alone has; N is 2, 4, 8 and all
// there are. Prints no row where there is one device.
#include <chrono>
#include <utility>

#include "bench.h"
#include "covenant/device_lora.h"

namespace {

using namespace covenant_bench;
using covenant::cuda::require;

struct Setup {
  int32_t devices = 1, stages = 1, collectives = COV_COLLECTIVES_ORDERED;
  bool adapters = false;
};

class Scaling {
 public:
  explicit Scaling(const Options& options)
      : options_(options), machine_(machine()), shape_(shape_for(machine_, options.quick, 50)) {
    shape_.layer_count = std::max(shape_.layer_count, cov_device_count());  // one or more a stage
    parameters_.resize(cov_parameter_count(&shape_));
    require(cov_initial_parameters(&shape_, 1, parameters_.data(), parameters_.size()));
  }

  void run() {
    std::vector<int32_t> counts;
    for (const int32_t count : {2, 4, 8})
      if (count < cov_device_count()) counts.push_back(count);
    counts.push_back(std::min(cov_device_count(), COV_PARALLEL_DEVICES_MAX));
    const double alone = rate({}), alone_adapted = rate({.adapters = true});
    for (const int32_t count : counts) {
      const std::string n = std::to_string(count);
      put("G3.replicas." + n, "replicas", {.devices = count}, alone);
      put("G3.replicas." + n + ".nccl", "replicas, NCCL where it is",
          {.devices = count, .collectives = COV_COLLECTIVES_NCCL}, alone);
      put("G3.replicas." + n + ".lora", "replicas, adapters of rank 16",
          {.devices = count, .adapters = true}, alone_adapted);
      put("G3.stages." + n, "stages", {.devices = count, .stages = count}, alone);
      put("G3.stages." + n + ".lora", "stages, adapters of rank 16",
          {.devices = count, .stages = count, .adapters = true}, alone_adapted);
    }
  }

 private:
  // Tokens a second, from the median of a few steps.
  double rate(const Setup& setup) {
    const int32_t length = machine_.emulated ? 16 : 2048;
    const int32_t sequences = (machine_.emulated ? 1 : 8) * setup.devices;
    std::vector<int32_t> tokens(static_cast<size_t>(sequences) * static_cast<size_t>(length));
    for (size_t i = 0; i < tokens.size(); ++i)
      tokens[i] = static_cast<int32_t>(i * 2654435761u % static_cast<uint32_t>(shape_.vocab_size));
    const cov_batch batch = {tokens.data(), tokens.data(), sequences, length};
    std::vector<int32_t> devices;
    for (int32_t i = 0; i < setup.devices; ++i) devices.push_back(i);
    const cov_parallel_options options = {setup.stages, COV_COMPUTE_BF16, setup.collectives, 0};
    cov_parallel_model* model = nullptr;
    require(cov_parallel_model_create(devices.data(), setup.devices, &shape_, &options, &model));
    report_ = cov_parallel_model_report(model);
    require(cov_parallel_model_write(model, COV_PARAMETERS, 0, parameters_.size(), parameters_.data()));
    cov_device_lora* lora = nullptr;
    if (setup.adapters) {
      const cov_lora_options of = {16, 32.0f, 127, 1};
      require(cov_parallel_model_create_lora(model, &of, &lora));
      require(cov_parallel_model_use_lora(model, lora));
    }
    const cov_adamw_options adamw = {1e-4f, 0.9f, 0.95f, 1e-8f, 0.1f, 1.0f};
    std::vector<double> times;
    for (int i = 0; i < (machine_.emulated ? 2 : 6); ++i) {
      const auto start = std::chrono::steady_clock::now();
      require(cov_parallel_model_train_step(model, &batch, &adamw, nullptr, nullptr));
      const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
      if (i > 0) times.push_back(time.count());  // the first one warms up
    }
    cov_device_lora_release(lora);
    cov_parallel_model_release(model);
    std::sort(times.begin(), times.end());
    return static_cast<double>(tokens.size()) / times[times.size() / 2];
  }

  void put(std::string id, const char* what, const Setup& setup, double alone) {
    if (!options_.wants(id)) return;
    Row row;
    row.id = std::move(id);
    row.metric = "bf16 training, Llama-3.2-1B shape, T 2048: tokens, ";
    row.metric += std::to_string(setup.devices) + " " + what;
    row.value = rate(setup);
    row.unit = "token/s";
    row.yardstick = "as many times one device";
    row.yardstick_value = setup.devices * alone;
    row.ratio = row.value / row.yardstick_value;
    row.note = std::string(machine_.info.name) + "; " + report_;
    if (shape_.layer_count != 16) row.note += ", " + std::to_string(shape_.layer_count) + " layers";
    if (machine_.emulated) row.note += ": shows that it runs, no measurement";
    print(options_, row);
  }

  Options options_;
  Machine machine_;
  cov_model_shape shape_;
  std::vector<float> parameters_;
  std::string report_;
};

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse(argc, argv);
  if (cov_device_count() < 2) {
    std::fprintf(stderr, "Left out: several devices are needed. %s\n", cov_device_report());
    return 0;
  }
  const cov_status status = covenant::cuda::guard([&] { Scaling(options).run(); });
  if (status.code != COV_OK) std::fprintf(stderr, "%s\n", status.message);
  return status.code == COV_OK ? 0 : 1;
}
