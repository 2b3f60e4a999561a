// Log-probs, entropy, gradients and three AdamW steps against transformers and torch. The vectors
// are made by test/vectors/models/make.py; run it again after a change of its format.
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "support.h"

using namespace covenant_test;

#ifndef COVENANT_VECTORS
#define COVENANT_VECTORS "../test/vectors"
#endif

namespace {

constexpr uint32_t kVersion = 2;

// Largest difference allowed, as a fraction of the largest value of the compared array.
constexpr double kLogProbTolerance = 1e-5;
constexpr double kGradientTolerance = 2e-5;
constexpr double kParameterTolerance = 2e-5;

class Reader {
 public:
  explicit Reader(const std::string& path) {
    std::FILE* file = std::fopen(path.c_str(), "rb");
    if (file == nullptr) {
      std::fprintf(stderr, "cannot open %s: run test/vectors/models/make.py\n", path.c_str());
      std::exit(1);
    }
    char block[65536];
    for (size_t n; (n = std::fread(block, 1, sizeof block, file)) > 0;)
      bytes_.insert(bytes_.end(), block, block + n);
    std::fclose(file);
  }
  template <typename T>
  T value() {
    T result;
    copy(&result, sizeof result);
    return result;
  }
  template <typename T>
  std::vector<T> section() {
    const uint64_t length = value<uint64_t>();
    if (length > bytes_.size()) std::exit(1);
    std::vector<T> values(length / sizeof(T));
    copy(values.data(), length);
    return values;
  }

 private:
  void copy(void* to, size_t count) {
    if (at_ + count > bytes_.size()) {
      std::fprintf(stderr, "golden file is too short\n");
      std::exit(1);
    }
    std::memcpy(to, bytes_.data() + at_, count);
    at_ += count;
  }
  std::vector<char> bytes_;
  size_t at_ = 0;
};

struct Golden {
  cov_model_shape shape;
  int32_t sequences, length;
  cov_adamw_options adamw;
  std::string tensors;
  std::vector<float> parameters;
  std::vector<int32_t> tokens, targets;
  std::vector<float> log_probs, entropy, gradients, coefficients, coefficient_gradients;
  std::vector<double> losses;
  std::vector<float> norms, final_parameters;

  cov_batch batch() const { return {tokens.data(), targets.data(), sequences, length}; }
};

Golden read_golden(const char* name) {
  Reader reader(std::string(COVENANT_VECTORS) + "/models/" + name + ".bin");
  Golden g;
  char magic[8];
  for (char& c : magic) c = reader.value<char>();
  const uint32_t version = reader.value<uint32_t>();
  if (std::memcmp(magic, "COVGOLD1", 8) != 0 || version != kVersion) {
    std::fprintf(stderr, "%s has another format: run test/vectors/models/make.py\n", name);
    std::exit(1);
  }
  for (int32_t* field : {&g.shape.vocab_size, &g.shape.hidden_size, &g.shape.intermediate_size,
                         &g.shape.layer_count, &g.shape.head_count, &g.shape.kv_head_count,
                         &g.shape.max_positions, &g.shape.tie_word_embeddings})
    *field = reader.value<int32_t>();
  g.shape.rope_theta = reader.value<double>();
  g.shape.rms_norm_eps = reader.value<double>();
  g.sequences = reader.value<int32_t>();
  g.length = reader.value<int32_t>();
  for (float* field : {&g.adamw.learning_rate, &g.adamw.beta1, &g.adamw.beta2, &g.adamw.epsilon,
                       &g.adamw.weight_decay, &g.adamw.gradient_clip})
    *field = reader.value<float>();
  const std::vector<char> text = reader.section<char>();
  g.tensors.assign(text.begin(), text.end());
  g.parameters = reader.section<float>();
  g.tokens = reader.section<int32_t>();
  g.targets = reader.section<int32_t>();
  g.log_probs = reader.section<float>();
  g.entropy = reader.section<float>();
  g.gradients = reader.section<float>();
  g.coefficients = reader.section<float>();
  g.coefficient_gradients = reader.section<float>();
  g.losses = reader.section<double>();
  g.norms = reader.section<float>();
  g.final_parameters = reader.section<float>();
  return g;
}

// Prints the largest difference and checks it against the largest expected magnitude.
void compare(const char* what, const float* actual, const float* expected, size_t count,
             double tolerance) {
  double scale = 0, difference = 0;
  for (size_t i = 0; i < count; ++i) {
    scale = std::max(scale, std::fabs(static_cast<double>(expected[i])));
    const double d = std::fabs(static_cast<double>(actual[i]) - expected[i]);
    difference = d > difference || !(d == d) ? d : difference;
  }
  if (!(difference <= tolerance * scale))
    std::fprintf(stderr, "  %s: largest difference %.3g at scale %.3g\n", what, difference, scale);
  report(difference <= tolerance * scale, __FILE__, __LINE__, what);
}

void compare_tensors(const Golden& g, const float* actual, const std::vector<float>& expected,
                     double tolerance) {
  std::vector<cov_tensor_info> table(static_cast<size_t>(cov_tensor_count(&g.shape)));
  CHECK_OK(cov_tensor_table(&g.shape, table.data(), static_cast<int32_t>(table.size())));
  for (const cov_tensor_info& tensor : table)
    compare(tensor.name, actual + tensor.offset, expected.data() + tensor.offset, tensor.length,
            tolerance);
}

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
  const size_t count = g.tokens.size(), vocab = static_cast<size_t>(g.shape.vocab_size);
  std::vector<float> log_probs(count), entropy(count), top(count * vocab);
  std::vector<int32_t> top_tokens(count * vocab);
  const cov_batch batch = g.batch();
  const cov_forward_options options = {0, g.shape.vocab_size, 1.0f};
  const cov_forward_output output = {log_probs.data(), entropy.data(), top_tokens.data(),
                                     top.data()};
  CHECK_OK(cov_model_forward(model, &batch, &options, &output));
  std::vector<float> expected = g.log_probs, actual(count * vocab);
  for (size_t i = 0; i < count; ++i) {
    const bool scored = g.targets[i] >= 0;
    CHECK_NEAR(entropy[i], scored ? g.entropy[i] : 0.0f, 2e-5);
    if (!scored) {
      CHECK(log_probs[i] == 0.0f && top_tokens[i * vocab] == -1);
      for (size_t v = 0; v < vocab; ++v) expected[i * vocab + v] = 0.0f;
      continue;
    }
    CHECK_NEAR(log_probs[i], g.log_probs[i * vocab + static_cast<size_t>(g.targets[i])], 5e-5);
    for (size_t v = 0; v < vocab; ++v) {
      actual[i * vocab + static_cast<size_t>(top_tokens[i * vocab + v])] = top[i * vocab + v];
      CHECK(v == 0 || top[i * vocab + v] <= top[i * vocab + v - 1]);
    }
  }
  compare("log-probs", actual.data(), expected.data(), actual.size(), kLogProbTolerance);
}

// backward from coefficients: the mean NLL, then arbitrary ones at temperature 0.7.
void test_backward(const Golden& g) {
  TestModel model(g.shape, g.parameters);
  const cov_batch batch = g.batch();
  const cov_forward_output nothing = {nullptr, nullptr, nullptr, nullptr};
  cov_forward_options options = {1, 0, 1.0f};
  CHECK_OK(cov_model_forward(model, &batch, &options, &nothing));
  int64_t scored = 0;
  for (int32_t target : g.targets) scored += target >= 0;
  const std::vector<float> mean(g.tokens.size(), -1.0f / static_cast<float>(scored));
  CHECK_OK(cov_model_backward(model, mean.data(), mean.size()));
  compare_tensors(g, model.buffer(COV_GRADIENTS), g.gradients, kGradientTolerance);
  std::memset(model.buffer(COV_GRADIENTS), 0, g.parameters.size() * sizeof(float));
  options.temperature = 0.7f;
  CHECK_OK(cov_model_forward(model, &batch, &options, &nothing));
  CHECK_OK(cov_model_backward(model, g.coefficients.data(), g.coefficients.size()));
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
  TEST_MAIN_END("golden_test");
}
