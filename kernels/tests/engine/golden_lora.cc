// Adapters against peft: log-probs, gradients of A and B, AdamW steps of them alone, and the merged
// model; with bf16 operands against their definition in torch. The vectors are made by
// make_adapters.py and make_rounded.py in test/vectors/models.
#include "covenant/lora.h"
#include "golden.h"

using namespace covenant_test;

namespace {

// Largest difference allowed, as a fraction of the largest value of the compared array. peft
// computes x W' as x W + s (x A) B, the engine packs W + s B A: the same in exact numbers. Some
// gradients are small sums of large terms: those of peft in fp32 are up to 1.9e-5 away from those in
// fp64.
constexpr double kLogProbTolerance = 1e-5;
constexpr double kGradientTolerance = 5e-5;
constexpr double kParameterTolerance = 2e-5;
constexpr double kMergedTolerance = 1e-6;  // one product and one sum

struct GoldenLora {
  cov_lora_options options = {};
  cov_adamw_options adamw;
  std::vector<float> adapters, log_probs, gradients, coefficient_gradients;
  std::vector<double> losses;
  std::vector<float> norms, final_adapters, merged;

  explicit GoldenLora(const char* name) {
    Reader reader(name, "COVLORA1", 1);
    options.rank = reader.value<int32_t>();
    options.targets = reader.value<int32_t>();
    options.alpha = reader.value<float>();
    options.seed = 1;
    adamw = read_adamw(reader);
    adapters = reader.section<float>();
    log_probs = reader.section<float>();
    gradients = reader.section<float>();
    coefficient_gradients = reader.section<float>();
    losses = reader.section<double>();
    norms = reader.section<float>();
    final_adapters = reader.section<float>();
    merged = reader.section<float>();
  }
};

// A model with the golden adapters in use.
class Adapted {
 public:
  Adapted(const Golden& g, const GoldenLora& l, int32_t compute = COV_COMPUTE_F32)
      : golden_(l), model(g.shape, g.parameters, 1, 0, compute) {
    CHECK_OK(cov_lora_create(model, &l.options, &lora));
    reset();
    CHECK_OK(cov_model_use_lora(model, lora));
  }
  ~Adapted() { cov_lora_release(lora); }
  Adapted(const Adapted&) = delete;
  float* buffer(cov_buffer which) {
    float* data = nullptr;
    uint64_t length = 0;
    CHECK_OK(cov_lora_buffer(lora, which, &data, &length));
    CHECK(length == golden_.adapters.size());
    return data;
  }
  void reset() {
    std::copy(golden_.adapters.begin(), golden_.adapters.end(), buffer(COV_PARAMETERS));
  }

 private:
  const GoldenLora& golden_;

 public:
  TestModel model;
  cov_lora* lora = nullptr;
};

// Matrix by matrix, so that small ones are not hidden by large ones: A and B of every target.
void compare_adapters(const char* what, const Golden& g, const GoldenLora& l, const float* actual,
                      const std::vector<float>& expected, double tolerance) {
  std::vector<cov_tensor_info> table(static_cast<size_t>(cov_tensor_count(&g.shape)));
  CHECK_OK(cov_tensor_table(&g.shape, table.data(), static_cast<int32_t>(table.size())));
  size_t at = 0;
  for (int32_t layer = 0; layer < g.shape.layer_count; ++layer)
    for (const char* target : {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj",
                               "down_proj"}) {
      const std::string prefix = "model.layers." + std::to_string(layer) + ".";
      for (const cov_tensor_info& tensor : table) {
        const std::string name = tensor.name;
        if (!name.starts_with(prefix) || name.find(target) == std::string::npos) continue;
        const auto bit = std::string("qkvogud").find(target[0]);
        if ((l.options.targets >> bit & 1) == 0) continue;
        for (const int64_t side : {tensor.dims[1], tensor.dims[0]}) {
          const auto count = static_cast<size_t>(l.options.rank * side);
          const std::string half = side == tensor.dims[1] ? ", A of " : ", B of ";
          compare((what + half + name).c_str(), actual + at, expected.data() + at, count,
                  tolerance);
          at += count;
        }
      }
    }
  CHECK(at == expected.size());
}

void test_forward_and_backward(const Golden& g, const GoldenLora& l) {
  Adapted a(g, l);
  compare("log-probs", all_log_probs(a.model, g).data(), scored_only(g, l.log_probs).data(),
          l.log_probs.size(), kLogProbTolerance);
  // The adapters matter: without them the model is far off.
  TestModel base(g.shape, g.parameters);
  CHECK(distance(all_log_probs(base, g).data(), scored_only(g, l.log_probs).data(),
                 l.log_probs.size()) > 0.05);
  backward(a.model, g, g.mean_coefficients(), 1.0f);
  compare_adapters("gradients", g, l, a.buffer(COV_GRADIENTS), l.gradients, kGradientTolerance);
  std::memset(a.buffer(COV_GRADIENTS), 0, l.adapters.size() * sizeof(float));
  backward(a.model, g, g.coefficients, 0.7f);
  compare_adapters("coefficient gradients", g, l, a.buffer(COV_GRADIENTS), l.coefficient_gradients,
                   kGradientTolerance);
}

void test_steps(const Golden& g, const GoldenLora& l) {
  Adapted a(g, l);
  const cov_batch batch = g.batch();
  for (size_t step = 0; step < l.losses.size(); ++step) {
    double loss = 0;
    float norm = 0;
    CHECK_OK(cov_model_train_step(a.model, &batch, &l.adamw, &loss, &norm));
    CHECK_NEAR(loss, l.losses[step], 1e-5 * l.losses[step]);
    CHECK_NEAR(norm, l.norms[step], 1e-4f * l.norms[step]);
  }
  CHECK(l.losses.size() == 3 && cov_lora_step_count(a.lora) == 3);
  compare_adapters("adapters", g, l, a.buffer(COV_PARAMETERS), l.final_adapters,
                   kParameterTolerance);
}

void test_merge(const Golden& g, const GoldenLora& l) {
  Adapted a(g, l);
  CHECK_OK(cov_lora_merge(a.lora, 0));
  compare_tensors(g, a.model.buffer(COV_PARAMETERS), l.merged, kMergedTolerance);
}

// Tokens are chosen as in golden_rounded.cc, and tolerances have the same reasons.
void test_bf16(const std::string& name, const char* model, const GoldenLora& l) {
  Reader reader(("rounded-" + name).c_str(), "COVLOWP1", 1);
  const Golden g = read_task(reader, model);
  const auto log_probs = reader.section<float>(), gradients = reader.section<float>(),
             coefficient_gradients = reader.section<float>();
  Adapted a(g, l, COV_COMPUTE_BF16), fp32(g, l);
  const auto near = [](const std::vector<float>& expected, const float* actual,
                       const float* in_fp32, double tolerance) {
    const double off = distance(actual, expected.data(), expected.size());
    const double far = distance(in_fp32, expected.data(), expected.size());
    std::printf("bf16: %.2g of the scale; fp32 %.2g\n", off, far);
    CHECK(off <= bf16_tolerance(tolerance));
    CHECK(far > 5e-3);
  };
  near(scored_only(g, log_probs), all_log_probs(a.model, g).data(),
       all_log_probs(fp32.model, g).data(), 1e-5);
  const auto compare_gradients = [&](const std::vector<float>& coefficients, float temperature,
                                     const std::vector<float>& expected) {
    for (Adapted* adapted : {&a, &fp32}) {
      std::memset(adapted->buffer(COV_GRADIENTS), 0, expected.size() * sizeof(float));
      backward(adapted->model, g, coefficients, temperature);
    }
    near(expected, a.buffer(COV_GRADIENTS), fp32.buffer(COV_GRADIENTS), 1e-3);
    compare_adapters("bf16", g, l, a.buffer(COV_GRADIENTS), expected, bf16_tolerance(2e-3));
  };
  compare_gradients(g.mean_coefficients(), 1.0f, gradients);
  compare_gradients(g.coefficients, 0.7f, coefficient_gradients);
}

}  // namespace

int main() {
  const std::pair<const char*, const char*> sets[] = {{"gqa-untied", "adapters-qvd"},
                                                      {"mha-tied", "adapters-all"}};
  for (const auto& [model, adapters] : sets) {
    const Golden g = read_golden(model);
    const GoldenLora l(adapters);
    for (const std::string& path : available_paths()) {
      CHECK_OK(cov_set_cpu_path(path.c_str()));
      test_forward_and_backward(g, l);
      test_steps(g, l);
      test_merge(g, l);
      test_bf16(adapters, model, l);
    }
    cov_set_cpu_path(nullptr);
  }
  TEST_MAIN_END("engine/golden_lora");
}
