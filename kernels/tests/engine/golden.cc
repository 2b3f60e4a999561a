// Log-probs, entropy, gradients and three AdamW steps against transformers and torch. The vectors
// are made by test/vectors/models/make.py; run it again after a change of its format.
#include "golden.h"

using namespace covenant_test;

namespace {

// Largest difference allowed, as a fraction of the largest value of the compared array.
constexpr double kLogProbTolerance = 1e-5;
constexpr double kGradientTolerance = 2e-5;
constexpr double kParameterTolerance = 2e-5;

void test_table(const Golden& g) {
  std::vector<cov_tensor_info> table(static_cast<size_t>(cov_tensor_count(&g.shape)));
  CHECK_OK(cov_tensor_table(&g.shape, table.data(), static_cast<int32_t>(table.size())));
  std::string text;
  for (const cov_tensor_info& tensor : table)
    text += std::string(tensor.name) + " " + std::to_string(tensor.dims[0]) + " " +
            std::to_string(tensor.dims[1]) + "\n";
  CHECK(text == g.tensors);
  CHECK(g.parameters.size() == cov_parameter_count(&g.shape));
}

void test_forward(const Golden& g) {
  TestModel model(g.shape, g.parameters);
  const size_t count = g.positions(), vocab = g.vocab();
  std::vector<float> log_probs(count), entropy(count), top(count * vocab);
  std::vector<int32_t> top_tokens(count * vocab);
  const cov_batch batch = g.batch();
  const cov_forward_options options = {0, g.shape.vocab_size, 1.0f};
  const cov_forward_output output = {log_probs.data(), entropy.data(), top_tokens.data(),
                                     top.data()};
  CHECK_OK(cov_model_forward(model, &batch, &options, &output));
  for (size_t i = 0; i < count; ++i) {
    const bool scored = g.targets[i] >= 0;
    CHECK_NEAR(entropy[i], scored ? g.entropy[i] : 0.0f, 2e-5);
    if (!scored) {
      CHECK(log_probs[i] == 0.0f && top_tokens[i * vocab] == -1);
      continue;
    }
    CHECK_NEAR(log_probs[i], g.log_probs[i * vocab + static_cast<size_t>(g.targets[i])], 5e-5);
    for (size_t v = 1; v < vocab; ++v) CHECK(top[i * vocab + v] <= top[i * vocab + v - 1]);
  }
  compare("log-probs", all_log_probs(model, g).data(), scored_only(g, g.log_probs).data(),
          count * vocab, kLogProbTolerance);
}

// backward from coefficients: the mean NLL, then arbitrary ones at temperature 0.7.
void test_backward(const Golden& g) {
  TestModel model(g.shape, g.parameters);
  backward(model, g, g.mean_coefficients(), 1.0f);
  compare_tensors(g, model.buffer(COV_GRADIENTS), g.gradients, kGradientTolerance);
  std::memset(model.buffer(COV_GRADIENTS), 0, g.parameters.size() * sizeof(float));
  backward(model, g, g.coefficients, 0.7f);
  compare_tensors(g, model.buffer(COV_GRADIENTS), g.coefficient_gradients, kGradientTolerance);
  CHECK_CODE(cov_model_backward(model, g.coefficients.data(), g.coefficients.size()),
             COV_FAILED_PRECONDITION);
}

void test_steps(const Golden& g) {
  TestModel model(g.shape, g.parameters);
  const cov_batch batch = g.batch();
  for (size_t step = 0; step < g.losses.size(); ++step) {
    double loss = 0;
    float norm = 0;
    CHECK_OK(cov_model_train_step(model, &batch, &g.adamw, &loss, &norm));
    CHECK_NEAR(loss, g.losses[step], 1e-5 * g.losses[step]);
    CHECK_NEAR(norm, g.norms[step], 1e-4f * g.norms[step]);
  }
  CHECK(cov_model_step_count(model) == static_cast<int64_t>(g.losses.size()));
  compare_tensors(g, model.buffer(COV_PARAMETERS), g.final_parameters, kParameterTolerance);
}

}  // namespace

int main() {
  for (const char* name : {"gqa-untied", "mha-tied"}) {
    const Golden g = read_golden(name);
    test_table(g);
    for (const std::string& path : available_paths()) {
      CHECK_OK(cov_set_cpu_path(path.c_str()));
      test_forward(g);
      test_backward(g);
      test_steps(g);
    }
    cov_set_cpu_path(nullptr);
  }
  TEST_MAIN_END("engine/golden");
}
