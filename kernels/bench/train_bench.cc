// C4: one training step (forward, backward, clipping, AdamW) with products in bf16 on two threads;
// the yardstick is PyTorch with bf16 autocast on the same shapes (yardsticks/train.py). Further
// rows say what a second thread brings and how much of the cores' peak the step uses.
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "covenant/lora.h"
#include "covenant/model.h"
#include "limits.h"
#include "rows.h"

using namespace covenant_bench;

namespace {

struct Case {
  const char* name;
  cov_model_shape shape;
};

// The shapes of yardsticks/train.py.
constexpr Case kCases[] = {
    {"6M", {4096, 256, 704, 7, 4, 2, 256, 1, 10000.0, 1e-5}},
    {"30M", {8192, 512, 1408, 9, 8, 4, 256, 1, 10000.0, 1e-5}},
};
constexpr int32_t kSequences = 8, kLength = 256;
constexpr double kTokens = kSequences * kLength;

// Forward and backward per step; of the scores the causal half, of the embedding nothing.
double step_flop(const cov_model_shape& s) {
  const double d = s.hidden_size, kv = d / s.head_count * s.kv_head_count;
  const double layer = 2 * d * d + 2 * d * kv + 3.0 * d * s.intermediate_size;
  const double attention = static_cast<double>(kLength) * d;  // q k and p v, half of each
  return 6 * kTokens * (s.layer_count * (layer + attention) + d * s.vocab_size);
}

class Trainer {
 public:
  Trainer(const cov_model_shape& shape, int threads, int32_t compute) {
    std::vector<float> parameters(cov_parameter_count(&shape));
    require(cov_initial_parameters(&shape, 1, parameters.data(), parameters.size()));
    const cov_model_options options = {parameters.data(), parameters.size(), threads, 0, compute};
    cov_model* model = nullptr;
    require(cov_model_create(&shape, &options, &model));
    model_.reset(model);
    for (int32_t i = 0; i < kSequences * kLength; ++i) {
      tokens_.push_back(static_cast<int32_t>(i * 7919LL % shape.vocab_size));
      targets_.push_back(static_cast<int32_t>((i + 1) * 7919LL % shape.vocab_size));
    }
  }
  void step() {
    const cov_batch batch = {tokens_.data(), targets_.data(), kSequences, kLength};
    const cov_adamw_options adamw = {3e-4f, 0.9f, 0.95f, 1e-8f, 0.1f, 1.0f};
    require(cov_model_train_step(model_.get(), &batch, &adamw, nullptr, nullptr));
  }
  // From here on a step trains adapters of all matrices instead of the base.
  void adapt(int32_t rank) {
    const cov_lora_options options = {rank, 16.0f, 127, 1};
    require(cov_lora_create(model_.get(), &options, &lora_));
    require(cov_model_use_lora(model_.get(), lora_));
  }
  double peak_mib() const {
    return static_cast<double>(cov_model_memory_peak_bytes(model_.get())) / (1 << 20);
  }
  ~Trainer() { cov_lora_release(lora_); }
  Trainer(const Trainer&) = delete;
  Trainer& operator=(const Trainer&) = delete;

 private:
  struct Release {
    void operator()(cov_model* model) const { cov_model_release(model); }
  };
  std::unique_ptr<cov_model, Release> model_;
  cov_lora* lora_ = nullptr;
  std::vector<int32_t> tokens_, targets_;
};

void bench(const Options& options, const Case& c, double peak) {
  const int rounds = options.quick ? 2 : 7;
  const double tokens = kTokens;
  const std::string id = std::string("C4.") + c.name;
  const std::string what = std::string(c.name) + " LLaMA, 8 x 256 tokens";
  Trainer two(c.shape, 2, COV_COMPUTE_BF16), one(c.shape, 1, COV_COMPUTE_BF16);
  const Compared compared = compare(rounds, [&] { two.step(); }, [&] { one.step(); });
  char note[160];
  std::snprintf(note, sizeof note, "%s; %llu parameters; %.2f of the peak of two cores",
                cov_cpu_path(), static_cast<unsigned long long>(cov_parameter_count(&c.shape)),
                1e-9 * step_flop(c.shape) / compared.first_s / (2 * peak));
  print(options, {.id = id,
                  .metric = "training step bf16, " + what + ", 2 threads",
                  .value = tokens / compared.first_s,
                  .unit = "tokens/s",
                  .yardstick = "PyTorch bf16 autocast",
                  .must = 1.5,
                  .aim = 3.0,
                  .note = note});
  print(options, {.id = id + ".threads",
                  .metric = "the same with 2 threads against 1",
                  .value = tokens / compared.first_s,
                  .unit = "tokens/s",
                  .yardstick = "1 thread",
                  .yardstick_value = tokens / compared.second_s,
                  .ratio = compared.speedup,
                  .must = 1.0});
  Trainer adapted(c.shape, 2, COV_COMPUTE_BF16);
  adapted.adapt(8);
  const Compared saved = compare(rounds, [&] { adapted.step(); }, [&] { two.step(); });
  std::snprintf(note, sizeof note, "%.0f MiB of memory instead of %.0f", adapted.peak_mib(),
                two.peak_mib());
  print(options, {.id = id + ".lora",
                  .metric = "adapters of rank 8 on all matrices against a full step",
                  .value = tokens / saved.first_s,
                  .unit = "tokens/s",
                  .yardstick = "full step",
                  .yardstick_value = tokens / saved.second_s,
                  .ratio = saved.speedup,
                  .note = note});
  if (options.quick) return;
  Trainer exact(c.shape, 2, COV_COMPUTE_F32);
  const Compared formats = compare(3, [&] { two.step(); }, [&] { exact.step(); });
  print(options, {.id = id + ".f32",
                  .metric = "the same, bf16 products against fp32 ones",
                  .value = tokens / formats.first_s,
                  .unit = "tokens/s",
                  .yardstick = "fp32",
                  .yardstick_value = tokens / formats.second_s,
                  .ratio = formats.speedup});
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse(argc, argv);
  const double bf16 = bf16_peak_gflops(options);
  const double peak = std::isfinite(bf16) ? bf16 : fp32_peak_gflops(options);
  for (const Case& c : kCases) bench(options, c, peak);
  return 0;
}
