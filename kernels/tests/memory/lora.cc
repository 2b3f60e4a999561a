// The same of adapters: see engine.cc.
#include "failing.h"

#include <memory>
#include <vector>

#include "../engine/support.h"
#include "covenant/lora.h"

using namespace covenant_test;

namespace {

constexpr cov_adamw_options kAdamw = {1e-2f, 0.9f, 0.95f, 1e-8f, 0.1f, 1.0f};
constexpr cov_lora_options kOptions = {3, 6.0f, 127, 17};
constexpr int32_t kLength = 10;

struct Fixture {
  cov_model_shape shape = tiny_shape();
  std::vector<float> initial = lively_parameters(shape, 5);
  std::unique_ptr<TestModel> model;
  cov_lora* lora = nullptr;
  std::vector<int32_t> tokens = Numbers(6).tokens(kLength, shape.vocab_size);
  std::vector<float> log_probs = std::vector<float>(kLength);
  std::vector<float> coefficients = std::vector<float>(kLength, -0.1f);
  cov_batch batch = {tokens.data(), tokens.data(), 1, kLength};
  int threads = 1;

  ~Fixture() { cov_lora_release(lora); }
  cov_status create() { return cov_lora_create(*model, &kOptions, &lora); }
  // A model with adapters in use.
  void fresh(bool with_adapters = true) {
    cov_lora_release(lora);
    lora = nullptr;
    model = std::make_unique<TestModel>(shape, initial, threads);
    if (!with_adapters) return;
    CHECK_OK(create());
    float* p = nullptr;
    uint64_t size = 0;
    CHECK_OK(cov_lora_buffer(lora, COV_PARAMETERS, &p, &size));
    Numbers numbers(8);
    for (uint64_t i = 0; i < size; ++i) p[i] += 0.1f * numbers.next();
    CHECK_OK(cov_model_use_lora(*model, lora));
  }
  void with_gradients() {
    fresh();
    CHECK_OK(forward_and_backward());
  }
  cov_status forward() {
    cov_forward_options options = {};
    options.keep_activations = 1;
    cov_forward_output output = {};
    output.log_probs = log_probs.data();
    return cov_model_forward(*model, &batch, &options, &output);
  }
  cov_status step() { return cov_lora_optimizer_step(lora, &kAdamw, nullptr); }
  std::vector<float> gradients() {
    float* g = nullptr;
    uint64_t size = 0;
    if (cov_lora_buffer(lora, COV_GRADIENTS, &g, &size).code != COV_OK) return {};
    return {g, g + size};
  }
  // From a forward that kept what it needs; sums begin anew.
  cov_status forward_and_backward() {
    float* g = nullptr;
    uint64_t size = 0;
    if (const cov_status got = cov_lora_buffer(lora, COV_GRADIENTS, &g, &size); got.code != COV_OK)
      return got;
    std::memset(g, 0, size * sizeof(float));
    if (const cov_status kept = forward(); kept.code != COV_OK) return kept;
    return cov_model_backward(*model, coefficients.data(), kLength);
  }
  std::vector<float> adapters() {
    float* p = nullptr;
    uint64_t size = 0;
    if (cov_lora_buffer(lora, COV_PARAMETERS, &p, &size).code != COV_OK) return {};
    return {p, p + size};
  }
  bool base_is_untouched() const {
    return std::memcmp(model->buffer(COV_PARAMETERS), initial.data(),
                       initial.size() * sizeof(float)) == 0;
  }
};

void test(int threads) {
  Fixture f;
  f.threads = threads;
  run({"create adapters", [&] { f.fresh(false); }, [&] { return f.create(); },
       [&] { return f.lora == nullptr && f.base_is_untouched(); },
       [&] { return f.lora != nullptr && f.adapters().size() > 0; }});

  f.fresh();
  CHECK_OK(f.forward());
  const std::vector<float> expected = f.log_probs;
  run({"forward with adapters", [&] { f.fresh(); }, [&] { return f.forward(); },
       [&] { return f.base_is_untouched(); }, [&] { return f.log_probs == expected; }});

  f.with_gradients();
  const std::vector<float> wanted = f.gradients();
  run({"backward with adapters", [&] { f.fresh(); }, [&] { return f.forward_and_backward(); },
       [&] { return f.base_is_untouched(); }, [&] { return f.gradients() == wanted; }});

  f.with_gradients();
  const std::vector<float> before = f.adapters();
  CHECK_OK(f.step());
  const std::vector<float> stepped = f.adapters();
  CHECK(stepped != before);
  run({"step of adapters", [&] { f.with_gradients(); }, [&] { return f.step(); },
       [&] { return f.base_is_untouched() && f.adapters() == before; },
       [&] { return f.adapters() == stepped; }});

  const auto base = [&] {
    const float* p = f.model->buffer(COV_PARAMETERS);
    return std::vector<float>(p, p + f.initial.size());
  };
  for (const int32_t reversible : {0, 1}) {
    f.fresh();
    CHECK_OK(cov_lora_merge(f.lora, reversible));
    const std::vector<float> merged = base();
    CHECK(merged != f.initial);
    run_if_it_allocates({"merge of adapters", [&] { f.fresh(); },
                         [&] { return cov_lora_merge(f.lora, reversible); },
                         [&] { return f.base_is_untouched(); },
                         [&] { return base() == merged; }});
  }
  CHECK_OK(cov_lora_unmerge(f.lora));
  CHECK(f.base_is_untouched());
}

}  // namespace

int main() {
  const int64_t before = live.load();
  for (const int threads : {1, 3}) test(threads);
  CHECK(live.load() == before);
  TEST_MAIN_END("memory/lora");
}
