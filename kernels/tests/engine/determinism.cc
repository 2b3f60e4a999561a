// Equal bits: reruns, thread counts, CPU paths; train step against forward + backward + step; saved
// and restored state continues exactly.
#include <vector>

#include "support.h"

using namespace covenant_test;

namespace {

const cov_adamw_options kAdamw = {3e-3f, 0.9f, 0.95f, 1e-8f, 0.1f, 1.0f};

struct Data {
  std::vector<int32_t> tokens, targets;
  int32_t sequences, length;
  cov_batch batch() const { return {tokens.data(), targets.data(), sequences, length}; }
};

// Enough rows for several groups and blocks.
Data make_data(const cov_model_shape& shape, int32_t sequences, int32_t length) {
  Numbers numbers(41);
  Data data = {numbers.tokens(sequences * length, shape.vocab_size),
               numbers.tokens(sequences * length, shape.vocab_size), sequences, length};
  for (size_t i = 0; i < data.targets.size(); i += 11) data.targets[i] = -1;
  return data;
}

struct State {
  std::vector<float> parameters, first, second;
  std::vector<double> losses;
  bool operator==(const State& other) const {
    const auto same = [](const auto& a, const auto& b) {
      return a.size() == b.size() &&
             (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(a[0])) == 0);
    };
    return same(parameters, other.parameters) && same(first, other.first) &&
           same(second, other.second) && same(losses, other.losses);
  }
};

State state_of(const TestModel& model, const cov_model_shape& shape, std::vector<double> losses) {
  const size_t count = cov_parameter_count(&shape);
  const auto copy = [&](cov_buffer which) {
    const float* data = model.buffer(which);
    return std::vector<float>(data, data + count);
  };
  return {copy(COV_PARAMETERS), copy(COV_FIRST_MOMENT), copy(COV_SECOND_MOMENT), std::move(losses)};
}

State train(const cov_model_shape& shape, const Data& data, int threads, bool one_call,
            int32_t compute, int32_t steps = unless_sanitized(3, 2)) {
  TestModel model(shape, lively_parameters(shape, 42), threads, 0, compute);
  const cov_batch batch = data.batch();
  std::vector<double> losses;
  int64_t scored = 0;
  for (int32_t target : data.targets) scored += target >= 0;
  for (int32_t step = 0; step < steps; ++step) {
    double loss = 0;
    if (one_call) {
      CHECK_OK(cov_model_train_step(model, &batch, &kAdamw, &loss, nullptr));
    } else {
      std::vector<float> log_probs(data.tokens.size());
      const std::vector<float> mean(data.tokens.size(),
                                    static_cast<float>(-1.0 / static_cast<double>(scored)));
      const cov_forward_options options = {1, 0, 1.0f};
      const cov_forward_output output = {log_probs.data(), nullptr, nullptr, nullptr};
      CHECK_OK(cov_model_forward(model, &batch, &options, &output));
      CHECK_OK(cov_model_backward(model, mean.data(), mean.size()));
      CHECK_OK(cov_model_optimizer_step(model, &kAdamw, nullptr));
      for (float log_prob : log_probs) loss -= static_cast<double>(log_prob);
      loss /= static_cast<double>(scored);
    }
    losses.push_back(loss);
  }
  CHECK(losses.back() < losses.front());
  return state_of(model, shape, std::move(losses));
}

void test_training(const cov_model_shape& shape, int32_t sequences, int32_t length,
                   int32_t compute) {
  const Data data = make_data(shape, sequences, length);
  const State once = train(shape, data, 1, true, compute);
  CHECK(train(shape, data, 1, true, compute) == once);
  for (const int threads : {2, 3, 7}) {
    if (kSanitized && threads != 3) continue;
    CHECK(train(shape, data, threads, true, compute) == once);
  }
  CHECK(train(shape, data, 1, false, compute) == once);
  CHECK(train(shape, data, 2, false, compute) == once);
  for (const std::string& path : available_paths()) {
    if (compute == COV_COMPUTE_BF16 && path == "amx") continue;  // other order of additions
    if (path == "portable" && (kSanitized || shape.hidden_size > 100)) continue;  // slow without FMA instructions
    CHECK_OK(cov_set_cpu_path(path.c_str()));
    State there = train(shape, data, 2, true, compute);
    CHECK(there == once);
  }
  cov_set_cpu_path(nullptr);
}

// Fifty steps twice, on one thread and on three: the same parameters, moments and losses.
void test_fifty_steps(int32_t compute) {
  const cov_model_shape shape = tiny_shape();
  const Data data = make_data(shape, 5, 31);
  const int32_t steps = unless_sanitized(50, 4);
  const State once = train(shape, data, 1, true, compute, steps);
  CHECK(train(shape, data, 1, true, compute, steps) == once);
  CHECK(train(shape, data, 3, true, compute, steps) == once);
}

// Two steps, state carried to a new model, two more steps: as four in a row.
void test_restore() {
  const cov_model_shape shape = tiny_shape();
  const Data data = make_data(shape, 5, 30);
  const cov_batch batch = data.batch();
  TestModel first(shape, lively_parameters(shape, 42));
  for (int step = 0; step < 2; ++step)
    CHECK_OK(cov_model_train_step(first, &batch, &kAdamw, nullptr, nullptr));
  const State middle = state_of(first, shape, {});
  TestModel second(shape, middle.parameters, 2);
  const size_t bytes = middle.parameters.size() * sizeof(float);
  std::memcpy(second.buffer(COV_FIRST_MOMENT), middle.first.data(), bytes);
  std::memcpy(second.buffer(COV_SECOND_MOMENT), middle.second.data(), bytes);
  CHECK_OK(cov_model_set_step_count(second, cov_model_step_count(first)));
  for (int step = 0; step < 2; ++step) {
    CHECK_OK(cov_model_train_step(first, &batch, &kAdamw, nullptr, nullptr));
    CHECK_OK(cov_model_train_step(second, &batch, &kAdamw, nullptr, nullptr));
  }
  CHECK(state_of(first, shape, {}) == state_of(second, shape, {}));
  CHECK(!(state_of(first, shape, {}) == middle));
}

// A sequence's log-probs do not depend on its neighbours in the batch.
void test_batch_invariance(int32_t compute) {
  const cov_model_shape shape = small_shape();
  TestModel model(shape, lively_parameters(shape, 43), 2, 0, compute);
  const Data data = make_data(shape, 9, 70);
  const cov_forward_options options = {0, 4, 1.0f};
  const auto run = [&](int32_t first, int32_t count, std::vector<float>& log_probs) {
    const size_t at = static_cast<size_t>(first * 70);
    log_probs.resize(static_cast<size_t>(count * 70));
    const cov_batch batch = {data.tokens.data() + at, data.targets.data() + at, count, 70};
    const cov_forward_output output = {log_probs.data(), nullptr, nullptr, nullptr};
    CHECK_OK(cov_model_forward(model, &batch, &options, &output));
  };
  std::vector<float> all, one;
  run(0, 9, all);
  for (int32_t s = 0; s < 9; ++s) {
    run(s, 1, one);
    CHECK_SAME(one.data(), all.data() + s * 70, 70 * sizeof(float));
  }
}

}  // namespace

int main() {
  for (const int32_t compute : {COV_COMPUTE_F32, COV_COMPUTE_BF16}) {
    test_training(tiny_shape(), unless_sanitized(22, 8), 40, compute);
    // Wide enough that every operation is shared between threads.
    test_training({64, 160, 192, unless_sanitized(2, 1), 5, 5, 160, 1, 10000.0, 1e-5},
                  unless_sanitized(4, 1), 150, compute);
    test_batch_invariance(compute);
    test_fifty_steps(compute);
  }
  test_restore();
  TEST_MAIN_END("engine/determinism");
}
