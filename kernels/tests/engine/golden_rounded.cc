// The formats below fp32 against their definitions in torch: training with bf16 operands, and
// generation from bf16 and from int8 weights. The vectors are made by test/vectors/models/make_rounded.py.
#include "golden.h"

using namespace covenant_test;

namespace {

// Largest difference allowed, as a fraction of the largest value of the compared array. The script
// chose tokens for which no operand of the forward pass lies so near to the edge between two
// roundings that the order of fp32 sums decides, and no large one of the backward pass. A small one
// that is what large ones left may cross an edge: one operand of thousands, by 2^-8 of itself.
constexpr double kForwardTolerance = 1e-5;
// For one key or value on an edge: the rotation leaves some that are differences of larger numbers.
constexpr double kGenerationTolerance = 2e-4;
constexpr double kGradientTolerance = 2e-3;
// The fp32 result has to be this far away, so that an operand which is rounded where it should not
// be, or is not where it should, shows.
constexpr double kFarther = 5e-3;

struct GoldenRounded {
  Golden task;  // the model of make.py, tokens of its own
  std::vector<float> log_probs, gradients, coefficient_gradients;
  std::vector<double> losses;
  std::vector<float> norms, final_parameters, weights_bf16, weights_int8;

  explicit GoldenRounded(const std::string& name) {
    Reader reader(("rounded-" + name).c_str(), "COVLOWP1", 1);
    task = read_task(reader, name.c_str());
    log_probs = reader.section<float>();
    gradients = reader.section<float>();
    coefficient_gradients = reader.section<float>();
    losses = reader.section<double>();
    norms = reader.section<float>();
    final_parameters = reader.section<float>();
    weights_bf16 = reader.section<float>();
    weights_int8 = reader.section<float>();
  }
};

// Near what is expected, from which the fp32 result is far.
void compare_rounded(const char* what, const std::vector<float>& actual,
                     const std::vector<float>& expected, const std::vector<float>& fp32,
                     double tolerance = kForwardTolerance) {
  const double near = distance(actual.data(), expected.data(), expected.size());
  const double off = distance(fp32.data(), expected.data(), expected.size());
  std::printf("%s: %.2g of the scale; fp32 %.2g\n", what, near, off);
  CHECK(near <= bf16_tolerance(tolerance));
  CHECK(off > kFarther);
}

std::vector<float> gradients_of(const Golden& g, int32_t compute,
                                const std::vector<float>& coefficients, float temperature) {
  TestModel model(g.shape, g.parameters, 1, 0, compute);
  backward(model, g, coefficients, temperature);
  const float* const data = model.buffer(COV_GRADIENTS);
  return std::vector<float>(data, data + g.parameters.size());
}

void test_compute_bf16(const GoldenRounded& r) {
  const Golden& g = r.task;
  TestModel model(g.shape, g.parameters, 1, 0, COV_COMPUTE_BF16);
  compare_rounded("log-probs", all_log_probs(model, g), scored_only(g, r.log_probs),
                  scored_only(g, g.log_probs));
  const std::vector<float> mean = g.mean_coefficients();
  const auto compare_gradients = [&](const std::vector<float>& coefficients, float temperature,
                                     const std::vector<float>& expected) {
    const auto actual = gradients_of(g, COV_COMPUTE_BF16, coefficients, temperature);
    compare_rounded("gradients", actual, expected,
                    gradients_of(g, COV_COMPUTE_F32, coefficients, temperature),
                    kGradientTolerance);
    compare_tensors(g, actual.data(), expected, bf16_tolerance(kGradientTolerance));
  };
  compare_gradients(mean, 1.0f, r.gradients);
  compare_gradients(g.coefficients, 0.7f, r.coefficient_gradients);
}

// The first step is that of the gradients above. After it, parameters whose gradient is nearly zero
// have moved by their sign, and some lie on an edge.
void test_steps(const GoldenRounded& r) {
  const Golden& g = r.task;
  TestModel model(g.shape, g.parameters, 1, 0, COV_COMPUTE_BF16);
  const cov_batch batch = g.batch();
  for (size_t step = 0; step < r.losses.size(); ++step) {
    double loss = 0;
    float norm = 0;
    CHECK_OK(cov_model_train_step(model, &batch, &g.adamw, &loss, &norm));
    std::printf("step %zu: loss %.7g, expected %.7g; norm %.7g, expected %.7g\n", step, loss,
                r.losses[step], static_cast<double>(norm), static_cast<double>(r.norms[step]));
    const double loss_tolerance = step == 0 ? bf16_tolerance(kForwardTolerance) : 2e-3;
    const double norm_tolerance = step == 0 ? bf16_tolerance(kGradientTolerance) : 3e-2;
    CHECK_NEAR(loss, r.losses[step], loss_tolerance * r.losses[step]);
    CHECK_NEAR(norm, r.norms[step], norm_tolerance * r.norms[step]);
  }
  CHECK(r.losses.size() == 3);
}

// Log-probabilities of every token after each prefix that is scored, as generation reports them.
std::vector<float> generated(cov_model* model, const Golden& g, int32_t weights) {
  std::vector<float> all(g.positions() * g.vocab()), top(g.vocab());
  std::vector<int32_t> top_tokens(g.vocab());
  for (size_t i = 0; i < g.positions(); ++i) {
    if (g.targets[i] < 0) continue;
    const size_t at = i % static_cast<size_t>(g.length);
    cov_generate_request request = {};
    request.prompt = &g.tokens[i - at];
    request.prompt_length = static_cast<int32_t>(at) + 1;
    request.max_new_tokens = 1;
    cov_generate_options options = {};
    options.top_count = g.shape.vocab_size;
    options.weights = weights;
    int32_t token = 0;
    cov_generate_output output = {};
    output.tokens = &token;
    output.top_tokens = top_tokens.data();
    output.top_log_probs = top.data();
    CHECK_OK(cov_model_generate(model, &request, 1, &options, &output));
    for (size_t v = 0; v < g.vocab(); ++v)
      all[i * g.vocab() + static_cast<size_t>(top_tokens[v])] = top[v];
  }
  return all;
}

void test_generation(const GoldenRounded& r) {
  const Golden& g = r.task;
  TestModel model(g.shape, g.parameters);
  const std::vector<float> fp32 = scored_only(g, g.log_probs);
  compare("generation from fp32", generated(model, g, COV_WEIGHTS_F32).data(), fp32.data(),
          fp32.size(), kForwardTolerance);
  compare_rounded("generation from bf16", generated(model, g, COV_WEIGHTS_BF16),
                  scored_only(g, r.weights_bf16), fp32, kGenerationTolerance);
  compare_rounded("generation from int8", generated(model, g, COV_WEIGHTS_INT8),
                  scored_only(g, r.weights_int8), fp32);
}

}  // namespace

int main() {
  for (const char* name : {"gqa-untied", "mha-tied"}) {
    const GoldenRounded r(name);
    for (const std::string& path : available_paths()) {
      CHECK_OK(cov_set_cpu_path(path.c_str()));
      std::printf("%s, %s\n", name, path.c_str());
      test_compute_bf16(r);
      test_steps(r);
      test_generation(r);
    }
    cov_set_cpu_path(nullptr);
  }
  TEST_MAIN_END("engine/golden_rounded");
}
