// Generation on a device, with CUDA graphs beside the same without them. Bounds are not stated for it.
#include <chrono>

#include "bench.h"
#include "covenant/device_model.h"
#include "covenant/model.h"

namespace {

using namespace covenant_bench;
using covenant::cuda::require;

constexpr int32_t kPrompt = 16;

class Generation {
 public:
  Generation(const Options& options, const Machine& machine)
      // Parameters with gradients and moments, their bf16 copy, and the cache.
      : options_(options), machine_(machine), shape_(shape_for(machine, options.quick, 24)) {
    require(cov_device_open(0, 0, &device_));
    require(cov_device_model_create(device_, &shape_, COV_COMPUTE_BF16, &model_));
    std::vector<float> parameters(cov_parameter_count(&shape_));
    require(cov_initial_parameters(&shape_, 1, parameters.data(), parameters.size()));
    require(cov_device_model_write(model_, COV_PARAMETERS, 0, parameters.size(), parameters.data()));
    prompt_.resize(kPrompt);
    for (int32_t i = 0; i < kPrompt; ++i) prompt_[static_cast<size_t>(i)] = i * 7 % shape_.vocab_size;
  }
  ~Generation() {
    cov_device_model_release(model_);
    cov_device_close(device_);
  }
  Generation(const Generation&) = delete;
  Generation& operator=(const Generation&) = delete;

  void run(int32_t batch) {
    const int32_t tokens = machine_.emulated ? 4 : options_.quick ? 32 : 128;
    const int rounds = machine_.emulated ? 1 : 5;
    std::vector<double> with, without, ratios;
    (void)seconds(batch, tokens, 1);  // warms up
    for (int round = 0; round < rounds; ++round) {
      without.push_back(seconds(batch, tokens, 0));
      with.push_back(seconds(batch, tokens, 1));
      ratios.push_back(without.back() / with.back());
    }
    cov_device_graphs graphs{};
    require(cov_device_model_graphs(model_, &graphs));
    Row row;
    row.id = "generate.graphs." + std::to_string(batch);
    row.metric = "bf16 generation, Llama-3.2-1B shape, " + std::to_string(batch) + " at once, CUDA graphs: tokens";
    row.unit = "token/s";
    row.value = batch * tokens / median(with);
    row.yardstick = "the same launch by launch";
    row.yardstick_value = batch * tokens / median(without);
    row.ratio = median(ratios);
    row.note = std::string(machine_.info.name) + "; " + std::to_string(graphs.nodes_max) +
               " launches and copies in a graph";
    if (graphs.refusal.code != COV_OK) row.note += "; refused: " + std::string(graphs.refusal.message);
    if (shape_.layer_count != 16) row.note += ", " + std::to_string(shape_.layer_count) + " layers";
    if (machine_.emulated) row.note += ": shows that it runs, no measurement";
    print(options_, row);
  }

 private:
  static double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
  }

  // Of one call, prompts included.
  double seconds(int32_t batch, int32_t tokens, int32_t graphs) {
    require(cov_device_model_set_graphs(model_, graphs));
    const auto count = static_cast<size_t>(batch);
    std::vector<int32_t> drawn(count * static_cast<size_t>(tokens));
    std::vector<cov_generate_request> requests;
    std::vector<cov_generate_output> outputs;
    for (int32_t i = 0; i < batch; ++i) {
      requests.push_back({prompt_.data(), kPrompt, tokens, 0.0f, 0, 0.0f, nullptr, 0, {}});
      outputs.push_back({drawn.data() + i * tokens, nullptr, nullptr, nullptr, nullptr, 0, 0});
    }
    const cov_generate_options options = {nullptr, 0, batch, nullptr, nullptr, nullptr, 0};
    const auto start = std::chrono::steady_clock::now();
    require(cov_device_model_generate(model_, requests.data(), batch, &options, outputs.data()));
    const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
    return time.count();
  }

  Options options_;
  Machine machine_;
  cov_model_shape shape_;
  cov_device* device_ = nullptr;
  cov_device_model* model_ = nullptr;
  std::vector<int32_t> prompt_;
};

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse(argc, argv);
  const Machine here = machine();
  const cov_status status = covenant::cuda::guard([&] {
    Generation generation(options, here);
    for (const int32_t batch : {1, 32}) generation.run(here.emulated ? std::min(batch, 3) : batch);
  });
  if (status.code != COV_OK) std::fprintf(stderr, "%s\n", status.message);
  return status.code == COV_OK ? 0 : 1;
}
