// Adapters: gradients of A and B against central differences of the double-precision reference,
// training of A and B alone, save and restore, merge, generation and replay with adapters in use.
#include "covenant/lora.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "covenant/generator.h"
#include "reference.h"
#include "support.h"

using namespace covenant_test;

namespace {

constexpr int32_t kLength = 9;
constexpr cov_adamw_options kAdamw = {2e-2f, 0.9f, 0.95f, 1e-8f, 0.0f, 1.0f};

struct Adapters {
  cov_lora* lora = nullptr;
  float* parameters = nullptr;
  uint64_t size = 0;

  Adapters(cov_model* model, int32_t targets, int32_t rank = 3, bool lively = true) {
    const cov_lora_options options = {rank, 6.0f, targets, 17};
    CHECK_OK(cov_lora_create(model, &options, &lora));
    parameters = buffer(COV_PARAMETERS);
    if (!lively) return;
    Numbers numbers(41);
    for (uint64_t i = 0; i < size; ++i) parameters[i] += 0.2f * numbers.next();
  }
  ~Adapters() { cov_lora_release(lora); }
  Adapters(const Adapters&) = delete;
  Adapters& operator=(const Adapters&) = delete;
  float* buffer(cov_buffer which) {
    float* data = nullptr;
    CHECK_OK(cov_lora_buffer(lora, which, &data, &size));
    return data;
  }
};

// Where the seven matrices of a layer lie, from the tensor table: q, k, v, o, gate, up, down.
struct Place {
  uint64_t offset;
  int64_t n, k;
};
std::vector<Place> matrices(const cov_model_shape& shape, int32_t targets) {
  std::vector<cov_tensor_info> tensors(static_cast<size_t>(cov_tensor_count(&shape)));
  CHECK_OK(cov_tensor_table(&shape, tensors.data(), static_cast<int32_t>(tensors.size())));
  const char* const names[] = {"q_proj", "k_proj",  "v_proj",   "o_proj",
                               "gate_proj", "up_proj", "down_proj"};
  std::vector<Place> found;
  for (int32_t layer = 0; layer < shape.layer_count; ++layer)
    for (int target = 0; target < 7; ++target) {
      if ((targets >> target & 1) == 0) continue;
      for (const cov_tensor_info& tensor : tensors) {
        const std::string name = tensor.name;
        if (name.find("layers." + std::to_string(layer) + ".") == std::string::npos ||
            name.find(names[target]) == std::string::npos)
          continue;
        found.push_back({tensor.offset, tensor.dims[0], tensor.dims[1]});
      }
    }
  return found;
}

// The flat parameters with adapters added, in double precision.
std::vector<double> adapted(const std::vector<float>& base, const std::vector<Place>& where,
                            const std::vector<double>& lora, int64_t rank, double scale) {
  std::vector<double> p(base.begin(), base.end());
  size_t at = 0;
  for (const Place& m : where) {
    const double* a = lora.data() + at;
    const double* b = a + rank * m.k;
    for (int64_t i = 0; i < m.n; ++i)
      for (int64_t j = 0; j < m.k; ++j)
        for (int64_t r = 0; r < rank; ++r)
          p[m.offset + static_cast<uint64_t>(i * m.k + j)] +=
              scale * b[i * rank + r] * a[r * m.k + j];
    at += static_cast<size_t>(rank * (m.k + m.n));
  }
  CHECK(at == lora.size());
  return p;
}

struct Task {
  std::vector<int32_t> tokens, targets;
  std::vector<float> coefficients, log_probs;
  cov_batch batch = {};
  explicit Task(const cov_model_shape& shape) {
    Numbers numbers(42);
    tokens = numbers.tokens(kLength, shape.vocab_size);
    targets = numbers.tokens(kLength, shape.vocab_size);
    coefficients = numbers.floats(kLength);
    log_probs.resize(kLength);
    batch = {tokens.data(), targets.data(), 1, kLength};
  }
  void forward(cov_model* model, bool keep) {
    cov_forward_options options = {};
    options.keep_activations = keep ? 1 : 0;
    cov_forward_output output = {};
    output.log_probs = log_probs.data();
    CHECK_OK(cov_model_forward(model, &batch, &options, &output));
  }
};

void test_gradients(int32_t targets) {
  const cov_model_shape shape = tiny_shape();
  const std::vector<float> base = lively_parameters(shape, 43);
  TestModel model(shape, base, 2);
  Adapters adapters(model, targets);
  CHECK_OK(cov_model_use_lora(model, adapters.lora));
  Task task(shape);
  task.forward(model, true);
  const ReferenceModel reference(shape);
  const std::vector<Place> where = matrices(shape, targets);
  const auto loss = [&](const std::vector<double>& lora) {
    const auto z = reference.log_probs(adapted(base, where, lora, 3, 2.0), task.tokens.data(),
                                       kLength);
    double sum = 0;
    for (size_t t = 0; t < kLength; ++t)
      sum += static_cast<double>(task.coefficients[t]) *
             z[t][static_cast<size_t>(task.targets[t])];
    return sum;
  };
  std::vector<double> p(adapters.parameters, adapters.parameters + adapters.size);
  double own = 0;
  for (size_t t = 0; t < kLength; ++t)
    own += static_cast<double>(task.coefficients[t] * task.log_probs[t]);
  CHECK_NEAR(own, loss(p), 1e-3);
  CHECK_OK(cov_model_backward(model, task.coefficients.data(), kLength));
  const float* g = adapters.buffer(COV_GRADIENTS);
  Numbers numbers(44);
  double largest = 0;
  for (int check = 0; check < 60; ++check) {
    const size_t i = static_cast<size_t>(numbers.below(static_cast<int32_t>(p.size())));
    const double step = 1e-5, at = p[i];
    p[i] = at + step;
    const double up = loss(p);
    p[i] = at - step;
    const double expected = (up - loss(p)) / (2 * step);
    p[i] = at;
    largest = std::max(largest, std::fabs(expected));
    CHECK_NEAR(g[i], expected, 2e-3 + 2e-3 * std::fabs(expected));
  }
  CHECK(largest > 0.05);
  // The base has no gradients and its parameters are untouched.
  const float* base_gradients = model.buffer(COV_GRADIENTS);
  CHECK(std::all_of(base_gradients, base_gradients + base.size(),
                    [](float x) { return x == 0.0f; }));
  CHECK(std::memcmp(model.buffer(COV_PARAMETERS), base.data(), base.size() * 4) == 0);
}

double train(cov_model* model, cov_lora* lora, Task& task, int steps) {
  std::fill(task.coefficients.begin(), task.coefficients.end(), -1.0f / kLength);
  double loss = 0;
  for (int i = 0; i < steps; ++i) {
    task.forward(model, true);
    loss = 0;
    for (float log_prob : task.log_probs) loss -= static_cast<double>(log_prob) / kLength;
    CHECK_OK(cov_model_backward(model, task.coefficients.data(), kLength));
    float norm = 0;
    CHECK_OK(cov_lora_optimizer_step(lora, &kAdamw, &norm));
    CHECK(norm > 0);
  }
  return loss;
}

void test_training() {
  const cov_model_shape shape = small_shape();
  std::vector<float> base(cov_parameter_count(&shape));
  CHECK_OK(cov_initial_parameters(&shape, 45, base.data(), base.size()));
  TestModel model(shape, base);
  Task task(shape);
  task.forward(model, false);
  const std::vector<float> plain = task.log_probs;
  Adapters adapters(model, 127, 4, false);
  CHECK_OK(cov_model_use_lora(model, adapters.lora));
  task.forward(model, false);
  CHECK(task.log_probs == plain);  // B is zero
  const double first = train(model, adapters.lora, task, 1);
  train(model, adapters.lora, task, 20);
  // Saved and restored, it goes on with the same bits.
  std::vector<std::vector<float>> saved;
  for (const cov_buffer which : {COV_PARAMETERS, COV_FIRST_MOMENT, COV_SECOND_MOMENT}) {
    const float* data = adapters.buffer(which);
    saved.emplace_back(data, data + adapters.size);
  }
  const int64_t steps = cov_lora_step_count(adapters.lora);
  CHECK(steps == 21);
  const double last = train(model, adapters.lora, task, 10);
  std::printf("loss with adapters: %.3f, then %.3f\n", first, last);
  CHECK(last < 0.85 * first);
  const std::vector<float> end(adapters.parameters, adapters.parameters + adapters.size);
  Adapters again(model, 127, 4);
  size_t i = 0;
  for (const cov_buffer which : {COV_PARAMETERS, COV_FIRST_MOMENT, COV_SECOND_MOMENT})
    std::copy(saved[i].begin(), saved[i].end(), again.buffer(which)), ++i;
  CHECK_OK(cov_lora_set_step_count(again.lora, steps));
  CHECK_OK(cov_model_use_lora(model, again.lora));
  CHECK(train(model, again.lora, task, 10) == last);
  CHECK(std::equal(end.begin(), end.end(), again.parameters));
  CHECK(std::memcmp(model.buffer(COV_PARAMETERS), base.data(), base.size() * 4) == 0);
  // Merged: the base alone now says the same bits, with and without the emptied adapters.
  task.forward(model, false);
  const std::vector<float> unmerged = task.log_probs;
  CHECK(unmerged != plain);
  CHECK_OK(cov_lora_merge(again.lora, 0));
  task.forward(model, false);
  CHECK(task.log_probs == unmerged);
  CHECK_OK(cov_model_use_lora(model, nullptr));
  task.forward(model, false);
  CHECK(task.log_probs == unmerged);
}

// Generation with adapters in use equals that of the merged model, and its replay, for every type.
void test_generation() {
  const cov_model_shape shape = small_shape();
  TestModel model(shape, lively_parameters(shape, 46));
  Adapters adapters(model, COV_LORA_Q | COV_LORA_V | COV_LORA_DOWN);
  const int32_t prompt[4] = {1, 2, 3, 4};
  cov_generate_request request = {};
  request.prompt = prompt;
  request.prompt_length = 4;
  request.max_new_tokens = 24;
  request.temperature = 1.0f;
  std::vector<int32_t> with[3], without[3], merged[3];
  const auto generate = [&](int32_t weights) {
    std::vector<int32_t> tokens(24), drawn(24);
    cov_generate_options options = {};
    options.weights = weights;
    cov_generate_output out = {};
    out.tokens = tokens.data();
    CHECK_OK(cov_model_generate(model, &request, 1, &options, &out));
    cov_replay_request again = {};
    again.prompt = prompt;
    again.prompt_length = 4;
    again.completion = tokens.data();
    again.completion_length = 24;
    again.temperature = 1.0f;
    cov_replay_output replayed = {};
    replayed.drawn = drawn.data();
    const cov_replay_options replay_options = {nullptr, nullptr, weights};
    CHECK_OK(cov_model_replay(model, &again, 1, &replay_options, &replayed));
    CHECK(drawn == tokens);
    return tokens;
  };
  for (int32_t type = 0; type < 3; ++type) without[type] = generate(type);
  CHECK_OK(cov_model_use_lora(model, adapters.lora));
  for (int32_t type = 0; type < 3; ++type) with[type] = generate(type);
  CHECK_OK(cov_lora_merge(adapters.lora, 0));
  CHECK_OK(cov_model_use_lora(model, nullptr));
  for (int32_t type = 0; type < 3; ++type) merged[type] = generate(type);
  for (int32_t type = 0; type < 3; ++type) {
    CHECK(with[type] != without[type]);
    CHECK(with[type] == merged[type]);
  }
}

// Gradients have the same bits for every thread count and, in fp32, on every CPU path; in bf16 they
// are near those in fp32.
void test_bits() {
  const cov_model_shape shape = small_shape();
  const std::vector<float> base = lively_parameters(shape, 50);
  Task task(shape);
  const auto gradients = [&](int threads, int32_t compute) {
    TestModel model(shape, base, threads, 0, compute);
    Adapters adapters(model, 127, 5);
    CHECK_OK(cov_model_use_lora(model, adapters.lora));
    task.forward(model, true);
    CHECK_OK(cov_model_backward(model, task.coefficients.data(), kLength));
    const float* g = adapters.buffer(COV_GRADIENTS);
    return std::vector<float>(g, g + adapters.size);
  };
  const std::vector<float> expected = gradients(1, COV_COMPUTE_F32);
  for (const std::string& path : available_paths()) {
    CHECK_OK(cov_set_cpu_path(path.c_str()));
    CHECK(gradients(3, COV_COMPUTE_F32) == expected);
    const std::vector<float> rounded = gradients(1, COV_COMPUTE_BF16);
    CHECK(gradients(4, COV_COMPUTE_BF16) == rounded);
    double difference = 0, norm = 0;
    for (size_t i = 0; i < expected.size(); ++i) {
      difference += std::pow(static_cast<double>(rounded[i] - expected[i]), 2);
      norm += std::pow(static_cast<double>(expected[i]), 2);
    }
    CHECK(norm > 0 && difference < 0.05 * 0.05 * norm && difference > 0);
  }
  cov_set_cpu_path(nullptr);
}

// A training step of the model trains the adapters alone, needs no gradients or moments of the base,
// and does what its parts do.
void test_train_step() {
  const cov_model_shape shape = small_shape();
  const std::vector<float> base = lively_parameters(shape, 51);
  TestModel whole(shape, base), parts(shape, base);
  Task task(shape);
  Adapters one(whole, 127, 4, false), two(parts, 127, 4, false);
  CHECK_OK(cov_model_use_lora(whole, one.lora));
  CHECK_OK(cov_model_use_lora(parts, two.lora));
  double first = 0, last = 0;
  for (int step = 0; step < 10; ++step) {
    float norm = 0;
    CHECK_OK(cov_model_train_step(whole, &task.batch, &kAdamw, &last, &norm));
    CHECK(norm > 0);
    if (step == 0) first = last;
    CHECK_NEAR(train(parts, two.lora, task, 1), last, 1e-4 * first);
  }
  CHECK(last < 0.9 * first);
  CHECK(std::memcmp(whole.buffer(COV_PARAMETERS), base.data(), base.size() * 4) == 0);
  CHECK(cov_lora_step_count(one.lora) == 10 && cov_model_step_count(whole) == 0);
  CHECK_CODE(cov_model_optimizer_step(whole, &kAdamw, nullptr), COV_FAILED_PRECONDITION);
  // Less memory than the gradients and moments of the base alone would take.
  TestModel full(shape, base);
  CHECK_OK(cov_model_train_step(full, &task.batch, &kAdamw, nullptr, nullptr));
  const uint64_t saved = cov_model_memory_peak_bytes(full) + cov_lora_memory_bytes(two.lora);
  CHECK(saved >= cov_model_memory_peak_bytes(parts) + 3 * base.size() * 4);
  CHECK(cov_lora_memory_bytes(one.lora) >= 4 * one.size * 4);
  // A step that fails clears the sums and leaves A and B.
  const std::vector<float> kept(one.parameters, one.parameters + one.size);
  one.buffer(COV_GRADIENTS)[3] = INFINITY;
  CHECK_CODE(cov_model_train_step(whole, &task.batch, &kAdamw, nullptr, nullptr), COV_NON_FINITE);
  CHECK(one.buffer(COV_GRADIENTS)[3] == 0.0f);
  CHECK(std::equal(kept.begin(), kept.end(), one.parameters));
}

// Several adapters on one base: switched at will, merged on top of each other and taken off again.
void test_several() {
  const cov_model_shape shape = small_shape();
  const std::vector<float> base = lively_parameters(shape, 52);
  TestModel model(shape, base);
  Task task(shape);
  Adapters one(model, COV_LORA_Q | COV_LORA_DOWN), two(model, 127, 7);
  const auto says = [&](cov_lora* lora) {
    CHECK_OK(cov_model_use_lora(model, lora));
    task.forward(model, false);
    return task.log_probs;
  };
  const std::vector<float> plain = says(nullptr), first = says(one.lora), second = says(two.lora);
  CHECK(first != plain && second != plain && first != second);
  CHECK(says(one.lora) == first && says(nullptr) == plain);
  CHECK_OK(cov_lora_merge(one.lora, 1));
  CHECK(says(nullptr) == first && says(one.lora) == first);
  CHECK_CODE(cov_lora_merge(one.lora, 0), COV_FAILED_PRECONDITION);
  CHECK_CODE(cov_model_train_step(model, &task.batch, &kAdamw, nullptr, nullptr),
             COV_FAILED_PRECONDITION);
  CHECK_CODE(cov_lora_optimizer_step(one.lora, &kAdamw, nullptr), COV_FAILED_PRECONDITION);
  CHECK_OK(cov_lora_merge(two.lora, 1));
  CHECK(says(nullptr) != first);
  CHECK_CODE(cov_lora_unmerge(one.lora), COV_FAILED_PRECONDITION);
  CHECK_OK(cov_lora_unmerge(two.lora));
  CHECK(says(nullptr) == first);
  CHECK_OK(cov_lora_unmerge(one.lora));
  CHECK(std::memcmp(model.buffer(COV_PARAMETERS), base.data(), base.size() * 4) == 0);
  CHECK(says(one.lora) == first);
  // Released while merged, it leaves the merged weights and no trace.
  {
    Adapters third(model, COV_LORA_V);
    CHECK_OK(cov_lora_merge(third.lora, 1));
    CHECK_OK(cov_lora_merge(two.lora, 1));
  }
  CHECK_OK(cov_lora_unmerge(two.lora));
  CHECK(says(nullptr) != plain);
  CHECK_CODE(cov_lora_unmerge(two.lora), COV_FAILED_PRECONDITION);
  CHECK_CODE(cov_lora_unmerge(nullptr), COV_INVALID_ARGUMENT);
}

void test_bad_input() {
  const cov_model_shape shape = tiny_shape();
  TestModel model(shape, lively_parameters(shape, 47)), other(shape, lively_parameters(shape, 48));
  cov_lora* lora = nullptr;
  const cov_lora_options bad[] = {
      {0, 1, 1, 0}, {1025, 1, 1, 0}, {2, 0, 1, 0}, {2, NAN, 1, 0}, {2, 1, 0, 0}, {2, 1, 128, 0}};
  for (const cov_lora_options& options : bad)
    CHECK_CODE(cov_lora_create(model, &options, &lora), COV_INVALID_ARGUMENT);
  CHECK_CODE(cov_lora_create(nullptr, &bad[0], &lora), COV_INVALID_ARGUMENT);
  const uint64_t before = cov_model_memory_bytes(model);
  {
    Adapters adapters(model, 5);
    CHECK(cov_model_memory_bytes(model) > before);
    CHECK_CODE(cov_model_use_lora(other, adapters.lora), COV_INVALID_ARGUMENT);
    CHECK_CODE(cov_lora_unmerge(adapters.lora), COV_FAILED_PRECONDITION);
    CHECK(cov_lora_memory_bytes(nullptr) == 0 && cov_lora_step_count(nullptr) == 0);
    CHECK_CODE(cov_lora_set_step_count(adapters.lora, -1), COV_INVALID_ARGUMENT);
    CHECK_CODE(cov_lora_optimizer_step(adapters.lora, nullptr, nullptr), COV_INVALID_ARGUMENT);
    float* g = adapters.buffer(COV_GRADIENTS);
    g[1] = NAN;
    const std::vector<float> kept(adapters.parameters, adapters.parameters + adapters.size);
    CHECK_CODE(cov_lora_optimizer_step(adapters.lora, &kAdamw, nullptr), COV_NON_FINITE);
    CHECK(g[1] == 0.0f);
    CHECK(std::equal(kept.begin(), kept.end(), adapters.parameters));
    CHECK(cov_lora_step_count(adapters.lora) == 0);
    CHECK_OK(cov_model_use_lora(model, adapters.lora));
  }
  CHECK(cov_model_memory_bytes(model) == before);
  Task(shape).forward(model, false);  // released while in use: the base alone
  TestModel small(shape, lively_parameters(shape, 49), 1, cov_parameter_count(&shape) * 4 + 4096);
  const cov_lora_options large = {512, 1.0f, 127, 0};
  CHECK_CODE(cov_lora_create(small, &large, &lora), COV_MEMORY_LIMIT);
  CHECK(lora == nullptr);
}

}  // namespace

int main() {
  for (const int32_t targets : {1, 2, 4, 8, 16, 32, 64, 127}) test_gradients(targets);
  test_training();
  test_generation();
  test_bits();
  test_train_step();
  test_several();
  test_bad_input();
  TEST_MAIN_END("engine/lora");
}
