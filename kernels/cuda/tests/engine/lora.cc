// Adapters on a device against those on the CPU: in fp32 equal bits of initial values, log-probs, gradients,
// steps, generated tokens and merged parameters (tier A); in bf16 log-probs within 2 % of the CPU's, gradients
// about as near to the fp32 ones as the CPU's in bf16, and equal reruns (tier B).
#include <cstdlib>

#include "adapters.h"

namespace {

using namespace covenant_test;

constexpr cov_adamw_options kAdamw = {2e-2f, 0.9f, 0.95f, 1e-8f, 0.1f, 1.0f};
constexpr int32_t kAll = 127, kNew = 6;

using OnDevice = DeviceAdapters<cov_device_model>;

struct Case {
  cov_model_shape shape;
  int32_t targets, rank, sequences, length;
};

// Every matrix alone and all of them; ranks below, at and above what is held at once; prime sizes, one row,
// one kv head for all, tied embeddings, sequences in two groups, sizes for wide copies.
const Case kCases[] = {
    {{37, 24, 20, 2, 4, 2, 64, 0, 10000.0, 1e-5}, kAll, 3, 3, 9},
    {{37, 24, 20, 2, 4, 2, 64, 0, 10000.0, 1e-5}, COV_LORA_Q, 1, 2, 5},
    {{37, 24, 20, 2, 4, 2, 64, 0, 10000.0, 1e-5}, COV_LORA_K | COV_LORA_UP, 17, 2, 5},
    {{37, 24, 20, 2, 4, 2, 64, 0, 10000.0, 1e-5}, COV_LORA_Q | COV_LORA_V, 32, 1, 7},
    {{11, 6, 7, 1, 1, 1, 4, 1, 500.0, 1e-6}, COV_LORA_O | COV_LORA_GATE, 33, 1, 1},
    {{53, 36, 29, 1, 3, 1, 64, 1, 10000.0, 1e-5}, COV_LORA_DOWN, 40, 3, 13},
    {{11, 8, 6, 1, 2, 1, 64, 1, 10000.0, 1e-5}, kAll, 5, 17, 64},
    {{16, 64, 48, 1, 2, 1, 64, 1, 10000.0, 1e-5}, kAll, 8, 1, 40},
    {{7, 2, 1, 1, 1, 1, 2, 1, 10000.0, 1e-5}, kAll, 1, 1, 2},
};

// The same model and adapters on both, in use.
struct Both {
  Both(cov_device* device, const Case& c, int32_t compute = COV_COMPUTE_F32)
      : parameters(lively_parameters(c.shape, 11)),
        options{c.rank, 6.0f, c.targets, 17},
        batch(c.shape, c.sequences, c.length, 5),
        cpu(c.shape, parameters, 1, 0, compute & ~COV_PRODUCTS_VENDOR),
        gpu(device, c.shape, parameters, compute),
        expected(cpu, options),
        found(gpu, options, expected.read(COV_PARAMETERS)) {
    CHECK(found.initial == expected.initial);
  }

  std::vector<float> parameters;
  cov_lora_options options;
  TestBatch batch;
  TestModel cpu;
  DeviceModel gpu;
  CpuAdapters expected;
  OnDevice found;
};

std::vector<float> forward(cov_model* model, const cov_batch& batch, size_t count) {
  std::vector<float> log_probs(count);
  const cov_forward_options options = {1, 0, 0.8f};
  const cov_forward_output output = {log_probs.data(), nullptr, nullptr, nullptr};
  CHECK_OK(cov_model_forward(model, &batch, &options, &output));
  return log_probs;
}

std::vector<float> forward(cov_device_model* model, const cov_batch& batch, size_t count) {
  std::vector<float> log_probs(count);
  const cov_forward_options options = {1, 0, 0.8f};
  const cov_forward_output output = {log_probs.data(), nullptr, nullptr, nullptr};
  CHECK_OK(cov_device_model_forward(model, &batch, &options, &output));
  return log_probs;
}

struct Generated {
  std::vector<int32_t> tokens = std::vector<int32_t>(kNew);
  std::vector<float> log_probs = std::vector<float>(kNew);
  bool operator==(const Generated&) const = default;
};

template <typename Model, typename Call>
Generated generate(Model* model, Call call) {
  const int32_t prompt[] = {1, 2, 3};
  Generated found;
  const cov_generate_request request = {prompt, 1, kNew, 1.0f, 0, 0.0f, nullptr, 0, {1, 2}};
  const cov_generate_options options = {};
  cov_generate_output output = {found.tokens.data(), found.log_probs.data(), nullptr, nullptr,
                                nullptr,             0,                      0};
  CHECK_OK(call(model, &request, 1, &options, &output));
  return found;
}

Generated generate(cov_model* model) { return generate(model, cov_model_generate); }
Generated generate(cov_device_model* model) { return generate(model, cov_device_model_generate); }

void replayed(cov_device_model* model, const Generated& generated) {
  const int32_t prompt[] = {1, 2, 3};
  Generated found;
  const cov_replay_request request = {prompt, 1, generated.tokens.data(), kNew, 1.0f, 0, 0.0f, {1, 2}};
  const cov_replay_options options = {};
  const cov_replay_output output = {found.tokens.data(), nullptr, found.log_probs.data(), nullptr};
  CHECK_OK(cov_device_model_replay(model, &request, 1, &options, &output));
  CHECK(found == generated);
}

void check_base(const Both& both, const float* expected) {
  const std::vector<float> base = both.gpu.read(COV_PARAMETERS);
  CHECK_SAME(base.data(), expected, base.size() * sizeof(float));
}

void equals_cpu(cov_device* device, const Case& c) {
  const Both both(device, c);
  const size_t count = both.batch.tokens.size();
  CHECK(forward(both.gpu, both.batch.batch, count) == forward(both.cpu, both.batch.batch, count));
  const std::vector<float> coefficients = Numbers(7).floats(static_cast<int64_t>(count));
  for (int sum = 0; sum < 2; ++sum) {  // the second adds to the first
    if (sum > 0) {
      forward(both.cpu, both.batch.batch, count);
      forward(both.gpu, both.batch.batch, count);
    }
    CHECK_OK(cov_model_backward(both.cpu, coefficients.data(), count));
    CHECK_OK(cov_device_model_backward(both.gpu, coefficients.data(), count));
    check_equal(both.found, both.expected);
  }
  float cpu_norm = 0, norm = 0;
  CHECK_OK(cov_lora_optimizer_step(both.expected, &kAdamw, &cpu_norm));
  CHECK_OK(cov_device_lora_optimizer_step(both.found, &kAdamw, &norm));
  CHECK(norm == cpu_norm);
  for (int step = 0; step < 3; ++step) {
    double cpu_loss = 0, loss = 0;
    CHECK_OK(cov_model_train_step(both.cpu, &both.batch.batch, &kAdamw, &cpu_loss, &cpu_norm));
    CHECK_OK(cov_device_model_train_step(both.gpu, &both.batch.batch, &kAdamw, &loss, &norm));
    CHECK(loss == cpu_loss && norm == cpu_norm);
  }
  check_equal(both.found, both.expected);
  CHECK(cov_device_lora_step_count(both.found) == 4);
  CHECK(cov_device_model_step_count(both.gpu) == 0);
  check_base(both, both.parameters.data());
  const std::vector<float> none = both.gpu.read(COV_GRADIENTS);
  CHECK(none == std::vector<float>(none.size(), 0.0f));
}

// Merged for good, reversibly, and not at all, generation says the same.
void merges(cov_device* device, int32_t compute) {
  const Case& c = kCases[0];
  const Both both(device, c, compute);
  const bool exact = compute == COV_COMPUTE_F32;
  const Generated generated = generate(both.gpu);
  replayed(both.gpu, generated);
  if (exact) CHECK(generated == generate(both.cpu));
  CHECK_OK(cov_device_model_use_lora(both.gpu, nullptr));
  const Generated plain = generate(both.gpu);
  CHECK(!(plain.log_probs == generated.log_probs));
  CHECK_OK(cov_device_lora_merge(both.found, 1));
  CHECK(generate(both.gpu) == generated);
  CHECK_OK(cov_device_model_use_lora(both.gpu, both.found));
  CHECK(generate(both.gpu) == generated);
  CHECK_CODE(cov_device_lora_merge(both.found, 0), COV_FAILED_PRECONDITION);
  CHECK_CODE(cov_device_lora_optimizer_step(both.found, &kAdamw, nullptr), COV_FAILED_PRECONDITION);
  CHECK_CODE(cov_device_model_train_step(both.gpu, &both.batch.batch, &kAdamw, nullptr, nullptr),
             COV_FAILED_PRECONDITION);
  CHECK_OK(cov_device_lora_unmerge(both.found));
  check_base(both, both.parameters.data());
  CHECK(generate(both.gpu) == generated);
  CHECK_OK(cov_device_lora_merge(both.found, 0));
  CHECK_OK(cov_lora_merge(both.expected, 0));
  check_base(both, both.cpu.buffer(COV_PARAMETERS));
  CHECK(both.found.read(COV_PARAMETERS) == both.expected.read(COV_PARAMETERS));
  CHECK(generate(both.gpu) == generated);
  CHECK_OK(cov_device_model_use_lora(both.gpu, nullptr));
  CHECK(generate(both.gpu) == generated);
  if (exact) CHECK(generate(both.cpu) == generated);
}

// Two adapters of one model: switched at will, merged on top of each other and taken off again.
void several(cov_device* device) {
  const Case& c = kCases[0];
  const Both both(device, c, COV_COMPUTE_BF16);
  const size_t count = both.batch.tokens.size();
  const auto says = [&](cov_device_lora* lora) {
    CHECK_OK(cov_device_model_use_lora(both.gpu, lora));
    return forward(both.gpu, both.batch.batch, count);
  };
  const std::vector<float> values(7 * (24 + 12) * 2, 0.1f);
  const std::vector<float> plain = says(nullptr), first = says(both.found);
  {
    const OnDevice second(both.gpu, {7, 3.0f, COV_LORA_K, 3}, values);
    CHECK(says(second) != plain && says(both.found) == first && says(nullptr) == plain);
    CHECK_OK(cov_device_lora_merge(both.found, 1));
    CHECK_OK(cov_device_lora_merge(second, 1));
    CHECK_CODE(cov_device_lora_unmerge(both.found), COV_FAILED_PRECONDITION);
    CHECK_OK(cov_device_lora_unmerge(second));
    CHECK(says(nullptr) == first);
    CHECK_OK(cov_device_lora_unmerge(both.found));
    CHECK(says(second) != plain);
    CHECK_CODE(cov_device_lora_unmerge(second), COV_FAILED_PRECONDITION);
    const std::vector<float> coefficients(count, 0.1f);
    says(second);
    CHECK_OK(cov_device_model_use_lora(both.gpu, both.found));
    CHECK_CODE(cov_device_model_backward(both.gpu, coefficients.data(), count),
               COV_FAILED_PRECONDITION);
    CHECK_OK(cov_device_model_use_lora(both.gpu, second));
  }
  CHECK(forward(both.gpu, both.batch.batch, count) == plain);  // released while in use: the base alone
}

void close_in_bf16(cov_device* device, const Case& c, int32_t compute) {
  const size_t count = static_cast<size_t>(c.sequences) * static_cast<size_t>(c.length);
  const std::vector<float> coefficients = Numbers(7).floats(static_cast<int64_t>(count));
  std::vector<float> runs[2];
  for (std::vector<float>& run : runs) {
    const Both both(device, c, compute);
    const std::vector<float> usual_log_probs = forward(both.cpu, both.batch.batch, count);
    CHECK_NEAR(difference(forward(both.gpu, both.batch.batch, count), usual_log_probs.data()), 0, 2e-2);
    CHECK_OK(cov_model_backward(both.cpu, coefficients.data(), count));
    CHECK_OK(cov_device_model_backward(both.gpu, coefficients.data(), count));
    const Both exact(device, c);
    forward(exact.cpu, exact.batch.batch, count);
    CHECK_OK(cov_model_backward(exact.cpu, coefficients.data(), count));
    const std::vector<float> target = exact.expected.read(COV_GRADIENTS);
    const double usual = difference(both.expected.read(COV_GRADIENTS), target.data());
    CHECK_NEAR(difference(both.found.read(COV_GRADIENTS), target.data()), 0, 2 * usual + 0.01);
    double first = 0, last = 0;
    for (int step = 0; step < 6; ++step) {
      CHECK_OK(cov_device_model_train_step(both.gpu, &both.batch.batch, &kAdamw, &last, nullptr));
      if (step == 0) first = last;
    }
    CHECK(last < first);
    check_base(both, both.parameters.data());
    run = both.found.read(COV_PARAMETERS);
  }
  CHECK_SAME(runs[0].data(), runs[1].data(), runs[0].size() * sizeof(float));
}

}  // namespace

int main() {
  if (!have_device()) return kSkipped;
  const DevicePointer device = open_device();
  for (const Case& c : kCases) equals_cpu(device.get(), c);
  for (const size_t i : {0, 5, 7}) close_in_bf16(device.get(), kCases[i], COV_COMPUTE_BF16);
  for (const int32_t compute : {COV_COMPUTE_F32, COV_COMPUTE_BF16}) merges(device.get(), compute);
  several(device.get());
  if (const char* const stand_in = std::getenv("COVENANT_FAKE_CUBLASLT"); stand_in != nullptr) {
    setenv("COVENANT_CUBLASLT_LIBRARY", stand_in, 1);
    close_in_bf16(device.get(), kCases[7], COV_COMPUTE_BF16 | COV_PRODUCTS_VENDOR);
  }
  TEST_MAIN_END("cuda lora");
}
