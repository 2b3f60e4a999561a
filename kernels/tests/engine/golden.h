// Golden vectors of test/vectors/models: reading them, and comparing with them.
#pragma once

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "support.h"

#ifndef COVENANT_VECTORS
#define COVENANT_VECTORS "../test/vectors"
#endif

namespace covenant_test {

class Reader {
 public:
  // Ends the test when the file is not of the wanted kind.
  Reader(const char* name, const char* magic, uint32_t version) {
    const std::string path = std::string(COVENANT_VECTORS) + "/models/" + name + ".bin";
    std::FILE* file = std::fopen(path.c_str(), "rb");
    if (file == nullptr) {
      std::fprintf(stderr, "cannot open %s: run the scripts beside it\n", path.c_str());
      std::exit(1);
    }
    char block[65536];
    for (size_t n; (n = std::fread(block, 1, sizeof block, file)) > 0;)
      bytes_.insert(bytes_.end(), block, block + n);
    std::fclose(file);
    char own[8];
    for (char& c : own) c = value<char>();
    if (std::memcmp(own, magic, 8) != 0 || value<uint32_t>() != version) {
      std::fprintf(stderr, "%s has another format: run the scripts beside it\n", path.c_str());
      std::exit(1);
    }
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
  size_t positions() const { return tokens.size(); }
  size_t vocab() const { return static_cast<size_t>(shape.vocab_size); }
  // By position, of the mean negative log-likelihood.
  std::vector<float> mean_coefficients() const {
    int64_t scored = 0;
    for (int32_t target : targets) scored += target >= 0;
    return std::vector<float>(targets.size(), -1.0f / static_cast<float>(scored));
  }
};

inline cov_adamw_options read_adamw(Reader& reader) {
  cov_adamw_options adamw;
  for (float* field : {&adamw.learning_rate, &adamw.beta1, &adamw.beta2, &adamw.epsilon,
                       &adamw.weight_decay, &adamw.gradient_clip})
    *field = reader.value<float>();
  return adamw;
}

inline Golden read_golden(const char* name) {
  Reader reader(name, "COVGOLD1", 2);
  Golden g;
  for (int32_t* field : {&g.shape.vocab_size, &g.shape.hidden_size, &g.shape.intermediate_size,
                         &g.shape.layer_count, &g.shape.head_count, &g.shape.kv_head_count,
                         &g.shape.max_positions, &g.shape.tie_word_embeddings})
    *field = reader.value<int32_t>();
  g.shape.rope_theta = reader.value<double>();
  g.shape.rms_norm_eps = reader.value<double>();
  g.sequences = reader.value<int32_t>();
  g.length = reader.value<int32_t>();
  g.adamw = read_adamw(reader);
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

// The model of make.py with the tokens of another file, and their log-probabilities in fp32.
inline Golden read_task(Reader& reader, const char* model) {
  Golden g = read_golden(model);
  g.sequences = reader.value<int32_t>();
  g.length = reader.value<int32_t>();
  g.tokens = reader.section<int32_t>();
  g.targets = reader.section<int32_t>();
  g.coefficients = reader.section<float>();
  g.log_probs = reader.section<float>();
  return g;
}

// On AMX tiles add in an order of their own, so that a few operands of thousands are rounded the
// other way, by 2^-8 of themselves.
inline double bf16_tolerance(double tolerance) {
  return std::strcmp(cov_cpu_path(), "amx") == 0 ? 3e-3 : tolerance;
}

// Largest difference, as a fraction of the largest expected magnitude; NaN when there is one.
inline double distance(const float* actual, const float* expected, size_t count) {
  double scale = 0, difference = 0;
  for (size_t i = 0; i < count; ++i) {
    scale = std::max(scale, std::fabs(static_cast<double>(expected[i])));
    const double d = std::fabs(static_cast<double>(actual[i]) - expected[i]);
    difference = d > difference || !(d == d) ? d : difference;
  }
  return difference / scale;
}

// Checks the distance, and prints it when it is too large.
inline void compare(const char* what, const float* actual, const float* expected, size_t count,
                    double tolerance) {
  const double d = distance(actual, expected, count);
  if (!(d <= tolerance))
    std::fprintf(stderr, "  %s: largest difference %.3g of the scale\n", what, d);
  report(d <= tolerance, __FILE__, __LINE__, what);
}

inline void compare_tensors(const Golden& g, const float* actual,
                            const std::vector<float>& expected, double tolerance) {
  std::vector<cov_tensor_info> table(static_cast<size_t>(cov_tensor_count(&g.shape)));
  CHECK_OK(cov_tensor_table(&g.shape, table.data(), static_cast<int32_t>(table.size())));
  for (const cov_tensor_info& tensor : table)
    compare(tensor.name, actual + tensor.offset, expected.data() + tensor.offset, tensor.length,
            tolerance);
}

// Log-probabilities of every token at each scored position, zeros elsewhere.
inline std::vector<float> all_log_probs(cov_model* model, const Golden& g) {
  std::vector<float> top(g.positions() * g.vocab()), all(top.size());
  std::vector<int32_t> top_tokens(top.size());
  const cov_batch batch = g.batch();
  const cov_forward_options options = {0, g.shape.vocab_size, 1.0f};
  const cov_forward_output output = {nullptr, nullptr, top_tokens.data(), top.data()};
  CHECK_OK(cov_model_forward(model, &batch, &options, &output));
  for (size_t i = 0; i < top.size(); ++i)
    if (top_tokens[i] >= 0)
      all[i / g.vocab() * g.vocab() + static_cast<size_t>(top_tokens[i])] = top[i];
  return all;
}

// What is expected of all_log_probs.
inline std::vector<float> scored_only(const Golden& g, std::vector<float> log_probs) {
  for (size_t i = 0; i < log_probs.size(); ++i)
    if (g.targets[i / g.vocab()] < 0) log_probs[i] = 0.0f;
  return log_probs;
}

// Adds the gradients of sum(coefficients * log p) at a temperature.
inline void backward(cov_model* model, const Golden& g, const std::vector<float>& coefficients,
                     float temperature) {
  const cov_batch batch = g.batch();
  const cov_forward_options options = {1, 0, temperature};
  const cov_forward_output nothing = {};
  CHECK_OK(cov_model_forward(model, &batch, &options, &nothing));
  CHECK_OK(cov_model_backward(model, coefficients.data(), coefficients.size()));
}

}  // namespace covenant_test
