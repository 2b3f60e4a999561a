// Generation on a device: with CUDA graphs beside the same without them, and the types of weights beside each other.
// Bounds are not stated for it.
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
      // Parameters of two models, their copies in bf16 and as bytes, and the cache.
      : options_(options), machine_(machine), shape_(shape_for(machine, options.quick, 24)) {
    require(cov_device_open(0, 0, &device_));
    std::vector<float> parameters(cov_parameter_count(&shape_));
    require(cov_initial_parameters(&shape_, 1, parameters.data(), parameters.size()));
    const auto create = [&](int32_t compute, cov_device_model** model) {
      require(cov_device_model_create(device_, &shape_, compute, model));
      require(cov_device_model_write(*model, COV_PARAMETERS, 0, parameters.size(), parameters.data()));
    };
    create(COV_COMPUTE_BF16, &model_);
    create(COV_COMPUTE_F32, &model_f32_);
    prompt_.resize(kPrompt);
    for (int32_t i = 0; i < kPrompt; ++i) prompt_[static_cast<size_t>(i)] = i * 7 % shape_.vocab_size;
  }
  ~Generation() {
    cov_device_model_release(model_f32_);
    cov_device_model_release(model_);
    cov_device_close(device_);
  }
  Generation(const Generation&) = delete;
  Generation& operator=(const Generation&) = delete;

  void run(int32_t batch) {
    const int32_t tokens = machine_.emulated ? 4 : options_.quick ? 32 : 128;
    const int rounds = machine_.emulated ? 1 : 5;
    std::vector<double> with, without, ratios;
    require(cov_device_model_set_graphs(model_, 1));
    (void)seconds(model_, batch, tokens);  // warms up
    for (int round = 0; round < rounds; ++round) {
      require(cov_device_model_set_graphs(model_, 0));
      without.push_back(seconds(model_, batch, tokens));
      require(cov_device_model_set_graphs(model_, 1));
      with.push_back(seconds(model_, batch, tokens));
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
    finish(row);
  }

  // Every type of weights by turns, beside bf16 on the tensor cores, the type of a bf16 model.
  void run_weights(int32_t batch) {
    struct Kind {
      const char *id, *name;
      cov_device_model* model;
      int32_t weights;
    };
    const Kind kinds[] = {{"int8", "int8 weights", model_, COV_WEIGHTS_INT8},
                          {"bf16", "bf16 weights, fp32 arithmetic", model_, COV_WEIGHTS_BF16},
                          {"f32", "fp32 weights", model_f32_, COV_WEIGHTS_F32}};
    const int32_t tokens = machine_.emulated ? 3 : options_.quick ? 32 : 128;
    const int rounds = machine_.emulated ? 1 : 5;
    std::vector<double> times[3], own, ratios[3];
    require(cov_device_model_set_graphs(model_, 1));
    for (int round = -1; round < rounds; ++round) {  // the first one warms up
      const double yardstick = seconds(model_, batch, tokens);
      if (round >= 0) own.push_back(yardstick);
      for (int i = 0; i < 3; ++i) {
        const double time = seconds(kinds[i].model, batch, tokens, kinds[i].weights);
        if (round < 0) continue;
        times[i].push_back(time);
        ratios[i].push_back(yardstick / time);
      }
    }
    for (int i = 0; i < 3; ++i) {
      Row row;
      row.id = std::string("generate.weights.") + kinds[i].id + "." + std::to_string(batch);
      row.metric = std::string(kinds[i].name) + ", generation, Llama-3.2-1B shape, " + std::to_string(batch) +
                   " at once: tokens, weights packed for each call";
      row.unit = "token/s";
      row.value = batch * tokens / median(times[i]);
      row.yardstick = "bf16 weights on the tensor cores";
      row.yardstick_value = batch * tokens / median(own);
      row.ratio = median(ratios[i]);
      row.note = machine_.info.name;
      finish(row);
    }
  }

 private:
  void finish(Row& row) const {
    if (shape_.layer_count != 16) row.note += ", " + std::to_string(shape_.layer_count) + " layers";
    if (machine_.emulated) row.note += ": shows that it runs, no measurement";
    print(options_, row);
  }

  static double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
  }

  // Of one call, prompts included.
  double seconds(cov_device_model* model, int32_t batch, int32_t tokens, int32_t weights = COV_WEIGHTS_F32) {
    const auto count = static_cast<size_t>(batch);
    std::vector<int32_t> drawn(count * static_cast<size_t>(tokens));
    std::vector<cov_generate_request> requests;
    std::vector<cov_generate_output> outputs;
    for (int32_t i = 0; i < batch; ++i) {
      requests.push_back({prompt_.data(), kPrompt, tokens, 0.0f, 0, 0.0f, nullptr, 0, {}});
      outputs.push_back({drawn.data() + i * tokens, nullptr, nullptr, nullptr, nullptr, 0, 0});
    }
    const cov_generate_options options = {nullptr, 0, batch, nullptr, nullptr, nullptr, weights};
    const auto start = std::chrono::steady_clock::now();
    require(cov_device_model_generate(model, requests.data(), batch, &options, outputs.data()));
    const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
    return time.count();
  }

  Options options_;
  Machine machine_;
  cov_model_shape shape_;
  cov_device* device_ = nullptr;
  cov_device_model *model_ = nullptr, *model_f32_ = nullptr;
  std::vector<int32_t> prompt_;
};

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse(argc, argv);
  const Machine here = machine();
  const cov_status status = covenant::cuda::guard([&] {
    Generation generation(options, here);
    for (int32_t batch : {1, 32}) {
      if (here.emulated) batch = std::min(batch, 3);
      generation.run(batch);
      generation.run_weights(batch);
    }
  });
  if (status.code != COV_OK) std::fprintf(stderr, "%s\n", status.message);
  return status.code == COV_OK ? 0 : 1;
}
