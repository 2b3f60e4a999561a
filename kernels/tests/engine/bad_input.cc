// Nothing a caller hands in crashes: bad lengths, tokens, options, weights and too little memory
// all come back as a status, and the model works afterwards.
#include <cstdlib>
#include <limits>
#include <vector>

#include "support.h"

using namespace covenant_test;

namespace {

const cov_adamw_options kAdamw = {1e-3f, 0.9f, 0.95f, 1e-8f, 0.1f, 1.0f};
const cov_forward_output kNothing = {nullptr, nullptr, nullptr, nullptr};

std::vector<float> copy(const TestModel& model, cov_buffer which, const cov_model_shape& shape) {
  const float* data = model.buffer(which);
  return std::vector<float>(data, data + cov_parameter_count(&shape));
}

void test_batches() {
  const cov_model_shape shape = tiny_shape();
  TestModel model(shape, lively_parameters(shape, 51));
  std::vector<int32_t> tokens(2 * 70, 1), targets(2 * 70, 2);
  const cov_forward_options options = {0, 0, 1.0f};
  const auto code = [&](cov_batch batch) {
    const int32_t forward = cov_model_forward(model, &batch, &options, &kNothing).code;
    CHECK(cov_model_train_step(model, &batch, &kAdamw, nullptr, nullptr).code == forward);
    return forward;
  };
  const std::vector<float> before = copy(model, COV_PARAMETERS, shape);
  CHECK(code({nullptr, targets.data(), 1, 4}) == COV_INVALID_ARGUMENT);
  CHECK(code({tokens.data(), nullptr, 1, 4}) == COV_INVALID_ARGUMENT);
  CHECK(code({tokens.data(), targets.data(), 0, 4}) == COV_INVALID_ARGUMENT);
  CHECK(code({tokens.data(), targets.data(), -1, 4}) == COV_INVALID_ARGUMENT);
  CHECK(code({tokens.data(), targets.data(), 1, 0}) == COV_INVALID_ARGUMENT);
  CHECK(code({tokens.data(), targets.data(), 1, 65}) == COV_OUT_OF_RANGE);
  for (const int32_t bad : {-1, 37, INT32_MAX, INT32_MIN}) {
    tokens[5] = bad;
    CHECK(code({tokens.data(), targets.data(), 2, 10}) == COV_OUT_OF_RANGE);
  }
  tokens[5] = 1;
  for (const int32_t bad : {-2, 37, INT32_MAX}) {
    targets[5] = bad;
    CHECK(code({tokens.data(), targets.data(), 2, 10}) == COV_OUT_OF_RANGE);
  }
  targets.assign(targets.size(), -1);
  const cov_batch unscored = {tokens.data(), targets.data(), 2, 10};
  CHECK_OK(cov_model_forward(model, &unscored, &options, &kNothing));
  CHECK_CODE(cov_model_train_step(model, &unscored, &kAdamw, nullptr, nullptr),
             COV_INVALID_ARGUMENT);
  CHECK(copy(model, COV_PARAMETERS, shape) == before);
}

void test_options() {
  const cov_model_shape shape = tiny_shape();
  TestModel model(shape, lively_parameters(shape, 52));
  const std::vector<int32_t> tokens(10, 1);
  const cov_batch batch = {tokens.data(), tokens.data(), 1, 10};
  for (const int32_t top : {-1, 38, 1000}) {
    const cov_forward_options options = {0, top, 1.0f};
    CHECK_CODE(cov_model_forward(model, &batch, &options, &kNothing), COV_INVALID_ARGUMENT);
  }
  for (const float temperature : {-1.0f, 1e-9f, INFINITY, NAN}) {
    const cov_forward_options options = {0, 0, temperature};
    CHECK_CODE(cov_model_forward(model, &batch, &options, &kNothing), COV_INVALID_ARGUMENT);
  }
  const std::vector<float> coefficients(10, 0.5f);
  CHECK_CODE(cov_model_backward(model, coefficients.data(), 10), COV_FAILED_PRECONDITION);
  const cov_forward_options keep = {1, 0, 1.0f};
  CHECK_OK(cov_model_forward(model, &batch, &keep, &kNothing));
  CHECK_CODE(cov_model_backward(model, coefficients.data(), 9), COV_INVALID_ARGUMENT);
  CHECK_CODE(cov_model_backward(model, nullptr, 10), COV_INVALID_ARGUMENT);
  std::vector<float> bad = coefficients;
  bad[3] = NAN;
  CHECK_CODE(cov_model_backward(model, bad.data(), 10), COV_NON_FINITE);
  CHECK_OK(cov_model_backward(model, coefficients.data(), 10));
  for (int field = 0; field < 6; ++field) {
    cov_adamw_options adamw = kAdamw;
    float* fields[] = {&adamw.learning_rate, &adamw.beta1,        &adamw.beta2,
                       &adamw.epsilon,       &adamw.weight_decay, &adamw.gradient_clip};
    *fields[field] = NAN;
    CHECK_CODE(cov_model_optimizer_step(model, &adamw, nullptr), COV_INVALID_ARGUMENT);
  }
  CHECK_CODE(cov_model_optimizer_step(model, nullptr, nullptr), COV_INVALID_ARGUMENT);
  CHECK_CODE(cov_model_set_step_count(model, -1), COV_INVALID_ARGUMENT);
  float* data = nullptr;
  uint64_t length = 0;
  CHECK_CODE(cov_model_buffer(model, 9, &data, &length), COV_INVALID_ARGUMENT);
  CHECK_CODE(cov_set_cpu_path("sse9"), COV_UNSUPPORTED);
}

void test_creation() {
  const cov_model_shape shape = tiny_shape();
  const std::vector<float> parameters = lively_parameters(shape, 53);
  cov_model* model = nullptr;
  cov_model_options options = {parameters.data(), parameters.size() - 1, 1, 0, COV_COMPUTE_F32};
  CHECK_CODE(cov_model_create(&shape, &options, &model), COV_INVALID_ARGUMENT);
  options = {parameters.data(), parameters.size(), -1, 0, COV_COMPUTE_F32};
  CHECK_CODE(cov_model_create(&shape, &options, &model), COV_INVALID_ARGUMENT);
  options = {parameters.data(), parameters.size(), 1000, 0, COV_COMPUTE_F32};
  CHECK_CODE(cov_model_create(&shape, &options, &model), COV_INVALID_ARGUMENT);
  options = {parameters.data(), parameters.size(), 1, 1000, COV_COMPUTE_F32};
  CHECK_CODE(cov_model_create(&shape, &options, &model), COV_MEMORY_LIMIT);
  options = {parameters.data(), parameters.size(), 1, 0, 2};
  CHECK_CODE(cov_model_create(&shape, &options, &model), COV_INVALID_ARGUMENT);
  CHECK(model == nullptr);
  // A shape within its limits that no machine can hold.
  cov_model_shape huge = {1 << 20, 1 << 16, 1 << 18, 1024, 8, 8, 1 << 20, 0, 10000.0, 1e-5};
  options = {nullptr, 0, 1, 0, COV_COMPUTE_F32};
  CHECK_CODE(cov_model_create(&huge, &options, &model), COV_OUT_OF_MEMORY);
  options.threads = 0;
  CHECK_OK(cov_model_create(&shape, &options, &model));
  CHECK(cov_model_threads(model) >= 1 && cov_default_threads() >= 1);
  cov_model_retain(model);
  cov_model_release(model);
  CHECK(cov_model_get_shape(model)->vocab_size == 37);
  cov_model_release(model);
  cov_model_release(nullptr);
}

// Whatever the limit, a call either works or says COV_MEMORY_LIMIT, and a working one afterwards
// gives the usual result.
void test_memory_limit() {
  const cov_model_shape shape = tiny_shape();
  const std::vector<float> parameters = lively_parameters(shape, 54);
  Numbers numbers(55);
  const std::vector<int32_t> tokens = numbers.tokens(6 * 50, shape.vocab_size);
  const cov_batch batch = {tokens.data(), tokens.data(), 6, 50};
  const cov_batch one = {tokens.data(), tokens.data(), 1, 3};
  TestModel free_model(shape, parameters);
  double expected = 0;
  CHECK_OK(cov_model_train_step(free_model, &batch, &kAdamw, &expected, nullptr));
  const uint64_t peak = cov_model_memory_peak_bytes(free_model);
  int refused = 0, worked = 0;
  for (uint64_t limit = parameters.size() * 4 + 64; limit < peak + 50000; limit += peak / 23) {
    TestModel model(shape, parameters, 1, limit);
    double loss = 0;
    const cov_status status = cov_model_train_step(model, &batch, &kAdamw, &loss, nullptr);
    CHECK(cov_model_memory_peak_bytes(model) <= limit);
    if (status.code == COV_OK) {
      ++worked;
      CHECK(loss == expected);
    } else {
      ++refused;
      CHECK(status.code == COV_MEMORY_LIMIT && std::strlen(status.message) > 10);
      CHECK_SAME(model.buffer(COV_PARAMETERS), parameters.data(),
                 parameters.size() * sizeof(float));
      const cov_forward_options keep = {1, 0, 1.0f};
      const int32_t code = cov_model_forward(model, &one, &keep, &kNothing).code;
      CHECK(code == COV_OK || code == COV_MEMORY_LIMIT);
    }
  }
  CHECK(refused > 3 && worked >= 1);
  const uint64_t used = cov_model_memory_bytes(free_model);
  cov_model_trim(free_model);
  CHECK(cov_model_memory_bytes(free_model) < used);
  CHECK_OK(cov_model_train_step(free_model, &batch, &kAdamw, &expected, nullptr));
}

void test_non_finite() {
  const cov_model_shape shape = tiny_shape();
  const std::vector<float> good = lively_parameters(shape, 56);
  const std::vector<int32_t> tokens(20, 3);
  const cov_batch batch = {tokens.data(), tokens.data(), 2, 10};
  const cov_forward_options options = {0, 0, 1.0f};
  std::vector<cov_tensor_info> table(static_cast<size_t>(cov_tensor_count(&shape)));
  CHECK_OK(cov_tensor_table(&shape, table.data(), static_cast<int32_t>(table.size())));
  for (const cov_tensor_info& tensor : table) {
    for (const float bad : {NAN, INFINITY, -INFINITY}) {
      std::vector<float> parameters = good;
      // Row 3 of the embedding is the one used; other tensors are read whole.
      parameters[tensor.offset + (tensor.offset == 0 ? 3 * 24 + 1 : 1)] = bad;
      TestModel model(shape, parameters);
      // Infinity in a projection may drown in a softmax or a gate; NaN always shows.
      const int32_t forward = cov_model_forward(model, &batch, &options, &kNothing).code;
      CHECK(forward == COV_NON_FINITE || !std::isnan(bad));
      const int32_t step = cov_model_train_step(model, &batch, &kAdamw, nullptr, nullptr).code;
      CHECK(step == COV_NON_FINITE || (step == COV_OK && !std::isnan(bad)));
      if (step == COV_NON_FINITE) {
        CHECK_SAME(model.buffer(COV_PARAMETERS), parameters.data(),
                   parameters.size() * sizeof(float));
        CHECK(cov_model_step_count(model) == 0);
        for (size_t i = 0; i < parameters.size(); ++i)
          CHECK(model.buffer(COV_GRADIENTS)[i] == 0.0f);
      }
    }
  }
  TestModel model(shape, good);
  model.buffer(COV_GRADIENTS)[7] = INFINITY;
  CHECK_CODE(cov_model_optimizer_step(model, &kAdamw, nullptr), COV_NON_FINITE);
  CHECK_OK(cov_model_optimizer_step(model, &kAdamw, nullptr));
}

void test_generation_requests() {
  const cov_model_shape shape = tiny_shape();
  std::vector<float> parameters = lively_parameters(shape, 57);
  TestModel model(shape, parameters);
  std::vector<int32_t> prompt(60, 2), tokens(64);
  const cov_generate_request good = {prompt.data(), 4, 8, 1.0f, 0, 1.0f, nullptr, 0, {}};
  cov_generate_options options = {};
  const auto run = [&](auto change) {
    cov_generate_request request = good;
    change(request);
    cov_generate_output output = {tokens.data(), nullptr, nullptr, nullptr, nullptr, 0, 0};
    return cov_model_generate(model, &request, 1, &options, &output).code;
  };
  CHECK(run([](cov_generate_request&) {}) == COV_OK);
  CHECK(run([](cov_generate_request& r) { r.prompt = nullptr; }) == COV_INVALID_ARGUMENT);
  CHECK(run([](cov_generate_request& r) { r.prompt_length = 0; }) == COV_INVALID_ARGUMENT);
  CHECK(run([](cov_generate_request& r) { r.prompt_length = -5; }) == COV_INVALID_ARGUMENT);
  CHECK(run([](cov_generate_request& r) { r.max_new_tokens = 0; }) == COV_INVALID_ARGUMENT);
  CHECK(run([](cov_generate_request& r) { r.max_new_tokens = 61; }) == COV_OUT_OF_RANGE);
  CHECK(run([](cov_generate_request& r) { r.max_new_tokens = INT32_MAX; }) == COV_OUT_OF_RANGE);
  CHECK(run([](cov_generate_request& r) { r.max_new_tokens = 60; }) == COV_OK);
  CHECK(run([](cov_generate_request& r) { r.temperature = -1; }) == COV_INVALID_ARGUMENT);
  CHECK(run([](cov_generate_request& r) { r.temperature = NAN; }) == COV_INVALID_ARGUMENT);
  CHECK(run([](cov_generate_request& r) { r.top_k = -1; }) == COV_INVALID_ARGUMENT);
  CHECK(run([](cov_generate_request& r) { r.top_k = 1000; }) == COV_OK);
  CHECK(run([](cov_generate_request& r) { r.top_p = 1.5f; }) == COV_INVALID_ARGUMENT);
  CHECK(run([](cov_generate_request& r) { r.top_p = NAN; }) == COV_INVALID_ARGUMENT);
  CHECK(run([](cov_generate_request& r) { r.stop_token_count = 1; }) == COV_INVALID_ARGUMENT);
  prompt[2] = 37;
  CHECK(run([](cov_generate_request&) {}) == COV_OUT_OF_RANGE);
  prompt[2] = 2;
  options.max_batch = -1;
  CHECK(run([](cov_generate_request&) {}) == COV_INVALID_ARGUMENT);
  options.max_batch = 0;
  cov_fingerprint_options fingerprint = {};
  options.fingerprint = &fingerprint;
  CHECK(run([](cov_generate_request&) {}) == COV_INVALID_ARGUMENT);
  options.fingerprint = nullptr;
  CHECK_OK(cov_model_generate(model, nullptr, 0, &options, nullptr));

  std::vector<int32_t> completion(5, 3);
  cov_replay_request replay = {prompt.data(), 4, completion.data(), 5, 1.0f, 0, 1.0f, {}};
  const cov_replay_output nothing = {nullptr, nullptr, nullptr, nullptr};
  const cov_replay_options replay_options = {};
  CHECK_OK(cov_model_replay(model, &replay, 1, &replay_options, &nothing));
  completion[4] = -1;
  CHECK_CODE(cov_model_replay(model, &replay, 1, &replay_options, &nothing), COV_OUT_OF_RANGE);
  completion[4] = 3;
  replay.completion_length = 0;
  CHECK_CODE(cov_model_replay(model, &replay, 1, &replay_options, &nothing), COV_INVALID_ARGUMENT);
  replay.completion_length = 5;
  replay.prompt_length = 60;
  CHECK_CODE(cov_model_replay(model, &replay, 1, &replay_options, &nothing), COV_OUT_OF_RANGE);
  replay.prompt_length = 4;
  const int32_t cancel = 1;
  const cov_replay_options cancelled = {nullptr, &cancel, 0};
  CHECK_CODE(cov_model_replay(model, &replay, 1, &cancelled, &nothing), COV_CANCELLED);
  model.buffer(COV_PARAMETERS)[2 * 24] = NAN;
  CHECK(run([](cov_generate_request&) {}) == COV_NON_FINITE);
  CHECK_CODE(cov_model_replay(model, &replay, 1, &replay_options, &nothing), COV_NON_FINITE);
  TestModel small(shape, parameters, 1, parameters.size() * 4 + 20000);
  cov_generate_output output = {tokens.data(), nullptr, nullptr, nullptr, nullptr, 0, 0};
  CHECK_CODE(cov_model_generate(small, &good, 1, &options, &output), COV_MEMORY_LIMIT);
}

}  // namespace

int main() {
  test_batches();
  test_options();
  test_creation();
  test_memory_limit();
  test_non_finite();
  test_generation_requests();
  TEST_MAIN_END("engine/bad_input");
}
