// The engine at the edges: shapes of ones and primes, sequences of one token, all of a vocabulary
// asked for, adapters of a higher rank than the matrix, on every CPU path and in every weight type.
// Whatever works gives finite numbers that a rerun repeats; the rest is refused with a code.
#include <algorithm>
#include <vector>

#include "covenant/lora.h"
#include "engine/support.h"

using namespace covenant_test;

namespace {

constexpr cov_adamw_options kAdamw = {1e-3f, 0.9f, 0.95f, 1e-8f, 0.1f, 1.0f};

// vocab, hidden, intermediate, layers, heads, kv heads, positions, tied, theta, eps
constexpr cov_model_shape kShapes[] = {
    {2, 2, 1, 1, 1, 1, 1, 0, 10000.0, 1e-5},   {2, 2, 1, 1, 1, 1, 2, 1, 1.0, 1e-5},
    {3, 6, 7, 1, 3, 1, 5, 1, 10000.0, 1e-5},   {7, 10, 13, 3, 5, 5, 17, 0, 10000.0, 1e-5},
    {101, 22, 31, 1, 11, 1, 19, 1, 1e6, 1e-6}, {257, 34, 67, 2, 1, 1, 33, 0, 10000.0, 1e-5},
};

bool all_finite(const float* values, size_t count) {
  return std::all_of(values, values + count, [](float v) { return std::isfinite(v); });
}

struct Case {
  cov_model_shape shape;
  std::vector<float> parameters;
  std::vector<int32_t> tokens, targets;
  cov_batch batch = {};

  Case(const cov_model_shape& s, int32_t sequences, int32_t length)
      : shape(s), parameters(lively_parameters(s, 61)) {
    Numbers numbers(62);
    tokens = numbers.tokens(sequences * length, s.vocab_size);
    targets = numbers.tokens(sequences * length, s.vocab_size);
    for (size_t i = 1; i < targets.size(); i += 5) targets[i] = -1;
    batch = {tokens.data(), targets.data(), sequences, length};
  }
};

// Parameters after a step in one call; the same by hand, with everything asked for on the way.
std::vector<float> train(const Case& c, int32_t compute, int32_t threads) {
  TestModel model(c.shape, c.parameters, threads, 0, compute);
  const size_t n = c.tokens.size(), top = static_cast<size_t>(std::min(c.shape.vocab_size, 256));
  std::vector<float> log_probs(n), entropy(n), top_log_probs(n * top);
  std::vector<int32_t> top_tokens(n * top);
  const cov_forward_options options = {1, static_cast<int32_t>(top), 1.3f};
  const cov_forward_output output = {log_probs.data(), entropy.data(), top_tokens.data(),
                                     top_log_probs.data()};
  CHECK_OK(cov_model_forward(model, &c.batch, &options, &output));
  CHECK(all_finite(log_probs.data(), n) && all_finite(entropy.data(), n));
  const std::vector<float> coefficients(n, -0.5f);
  CHECK_OK(cov_model_backward(model, coefficients.data(), n));
  CHECK(all_finite(model.buffer(COV_GRADIENTS), c.parameters.size()));
  CHECK_OK(cov_model_optimizer_step(model, &kAdamw, nullptr));
  double loss = 0;
  float norm = 0;
  CHECK_OK(cov_model_train_step(model, &c.batch, &kAdamw, &loss, &norm));
  CHECK(std::isfinite(loss) && loss >= 0 && std::isfinite(norm) && norm >= 0);
  const float* p = model.buffer(COV_PARAMETERS);
  CHECK(all_finite(p, c.parameters.size()));
  return std::vector<float>(p, p + c.parameters.size());
}

// As many tokens as fit behind a prompt of one, replayed; top_k beyond the vocabulary.
std::vector<int32_t> generate(cov_model* model, const cov_model_shape& shape, int32_t weights) {
  const int32_t room = shape.max_positions - 1, prompt = shape.vocab_size - 1;
  std::vector<int32_t> tokens(static_cast<size_t>(room) + 1), drawn(tokens.size());
  std::vector<float> log_probs(tokens.size());
  std::vector<int8_t> prints(tokens.size() * 64), again(prints.size());
  const cov_fingerprint_options fingerprint = {{1}, 64};
  cov_generate_request request = {};
  request.prompt = &prompt;
  request.prompt_length = 1;
  request.max_new_tokens = room;
  request.temperature = 1.0f;
  request.top_k = shape.vocab_size + 5;
  request.top_p = 0.9f;
  cov_generate_options options = {};
  options.fingerprint = &fingerprint;
  options.weights = weights;
  cov_generate_output output = {};
  output.tokens = tokens.data();
  output.log_probs = log_probs.data();
  output.fingerprints = prints.data();
  const cov_status status = cov_model_generate(model, &request, 1, &options, &output);
  if (room == 0) {
    CHECK(status.code == COV_INVALID_ARGUMENT || status.code == COV_OUT_OF_RANGE);
    return {};
  }
  CHECK_OK(status);
  CHECK(output.token_count == room && all_finite(log_probs.data(), static_cast<size_t>(room)));
  cov_replay_request replay = {&prompt, 1,    tokens.data(), room, 1.0f, request.top_k,
                               0.9f,    {}};
  const cov_replay_output seen = {drawn.data(), nullptr, nullptr, again.data()};
  const cov_replay_options how = {&fingerprint, nullptr, weights};
  CHECK_OK(cov_model_replay(model, &replay, 1, &how, &seen));
  CHECK(drawn == tokens && again == prints);
  return tokens;
}

void shapes() {
  for (const cov_model_shape& shape : kShapes) {
    CHECK_OK(cov_shape_check(&shape));
    const std::vector<std::string> paths = available_paths();
    for (const int32_t length : {1, shape.max_positions}) {
      const Case c(shape, 3, length);
      std::vector<float> first;
      for (const std::string& path : paths) {
        CHECK_OK(cov_set_cpu_path(path.c_str()));
        const std::vector<float> p = train(c, COV_COMPUTE_F32, 1);
        if (first.empty()) first = p;
        CHECK(p == first);
        CHECK(train(c, COV_COMPUTE_F32, 3) == first);
        CHECK(train(c, COV_COMPUTE_BF16, 3) == train(c, COV_COMPUTE_BF16, 1));
      }
    }
    for (const int32_t weights : {COV_WEIGHTS_F32, COV_WEIGHTS_BF16, COV_WEIGHTS_INT8}) {
      std::vector<int32_t> first;
      for (const std::string& path : paths) {
        CHECK_OK(cov_set_cpu_path(path.c_str()));
        TestModel model(shape, lively_parameters(shape, 63), 2);
        const std::vector<int32_t> tokens = generate(model, shape, weights);
        if (first.empty()) first = tokens;
        CHECK(tokens == first);
      }
    }
    CHECK_OK(cov_set_cpu_path(nullptr));
  }
}

// Ranks beyond both dimensions of a matrix.
void adapters() {
  for (const cov_model_shape& shape : kShapes) {
    TestModel model(shape, lively_parameters(shape, 64), 2);
    for (const int32_t rank : {1, 97, 1024}) {
      const cov_lora_options options = {rank, 2.0f, 127, 5};
      cov_lora* lora = nullptr;
      CHECK_OK(cov_lora_create(model, &options, &lora));
      CHECK_OK(cov_model_use_lora(model, lora));
      const Case c(shape, 2, shape.max_positions);
      const cov_forward_options keep = {1, 0, 1.0f};
      const cov_forward_output nothing = {};
      const std::vector<float> coefficients(c.tokens.size(), -0.1f);
      CHECK_OK(cov_model_forward(model, &c.batch, &keep, &nothing));
      CHECK_OK(cov_model_backward(model, coefficients.data(), coefficients.size()));
      float norm = -1;
      CHECK_OK(cov_lora_optimizer_step(lora, &kAdamw, &norm));
      CHECK(std::isfinite(norm) && norm >= 0);
      CHECK_OK(cov_lora_merge(lora, 1));
      CHECK_CODE(cov_lora_merge(lora, 1), COV_FAILED_PRECONDITION);
      CHECK_OK(cov_lora_unmerge(lora));
      CHECK_OK(cov_lora_merge(lora, 0));
      CHECK(all_finite(model.buffer(COV_PARAMETERS), cov_parameter_count(&shape)));
      // NaN in an adapter is found when it is used.
      float* p = nullptr;
      uint64_t size = 0;
      CHECK_OK(cov_lora_buffer(lora, COV_PARAMETERS, &p, &size));
      p[size - 1] = NAN;
      const int32_t code = cov_model_forward(model, &c.batch, &keep, &nothing).code;
      CHECK(code == COV_NON_FINITE);
      cov_lora_release(lora);
    }
  }
}

// Shapes that are none, tables without room, parameters of another length.
void refusals() {
  cov_model_shape good = kShapes[3];
  const auto refused = [](const cov_model_shape& shape) {
    const cov_status status = cov_shape_check(&shape);
    CHECK(status.code == COV_INVALID_ARGUMENT && status.message[0] != '\0');
  };
  for (int field = 0; field < 8; ++field)
    for (const int32_t bad : {-1, field == 7 ? 2 : 0, INT32_MAX, INT32_MIN}) {
      cov_model_shape shape = good;
      int32_t* fields[] = {&shape.vocab_size,    &shape.hidden_size,   &shape.intermediate_size,
                           &shape.layer_count,   &shape.head_count,    &shape.kv_head_count,
                           &shape.max_positions, &shape.tie_word_embeddings};
      *fields[field] = bad;
      refused(shape);
    }
  for (const double bad : {0.0, -1.0, static_cast<double>(NAN), static_cast<double>(INFINITY)}) {
    cov_model_shape shape = good;
    shape.rope_theta = bad;
    refused(shape);
    shape = good;
    shape.rms_norm_eps = bad;
    if (bad != 0.0) refused(shape);
  }
  std::vector<cov_tensor_info> tensors(static_cast<size_t>(cov_tensor_count(&good)));
  const auto count = static_cast<int32_t>(tensors.size());
  CHECK(cov_tensor_table(&good, tensors.data(), count - 1).code == COV_INVALID_ARGUMENT);
  CHECK_OK(cov_tensor_table(&good, tensors.data(), count));
  std::vector<float> p(cov_parameter_count(&good));
  for (const uint64_t length : {uint64_t{0}, p.size() - 1, p.size() + 1})
    CHECK_CODE(cov_initial_parameters(&good, 1, p.data(), length), COV_INVALID_ARGUMENT);
}

}  // namespace

int main() {
  shapes();
  adapters();
  refusals();
  TEST_MAIN_END("edges/models");
}
