// Forward, backward and steps against the CPU engine: equal bits in fp32 (tier A); in bf16 results about as
// near to the fp32 ones as the CPU's in bf16 (tier C), and equal reruns (tier B).
#include "support.h"

namespace {

using namespace covenant_test;

constexpr cov_adamw_options kAdamw = {1e-2f, 0.9f, 0.95f, 1e-8f, 0.1f, 1.0f};

struct Case {
  cov_model_shape shape;
  int32_t sequences, length;
};

// Prime sizes; one row; one kv head for all; tied embeddings; sequences in two groups; sizes for wide
// copies and more than one tile of queries; a head too wide for the fused attention.
const Case kCases[] = {
    {{37, 24, 20, 2, 4, 2, 64, 0, 10000.0, 1e-5}, 2, 7},
    {{11, 6, 7, 1, 1, 1, 4, 1, 500.0, 1e-6}, 1, 1},
    {{53, 36, 29, 1, 3, 1, 64, 1, 10000.0, 1e-5}, 3, 13},
    {{11, 8, 6, 1, 2, 1, 64, 1, 10000.0, 1e-5}, 17, 64},
    {{16, 64, 48, 2, 2, 1, 128, 1, 10000.0, 1e-5}, 1, 70},
    {{11, 132, 8, 1, 1, 1, 16, 1, 10000.0, 1e-5}, 2, 5},
};

// The most probable tokens are those of the logits that the targets' log-probs come from.
void tops_agree(const ForwardResults& found, const TestBatch& batch, int32_t tops) {
  for (size_t i = 0; i < batch.targets.size(); ++i) {
    if (batch.targets[i] < 0) continue;
    const size_t first = i * static_cast<size_t>(tops), after = first + static_cast<size_t>(tops);
    CHECK(found.top_log_probs[first] >= found.log_probs[i]);
    for (size_t at = first; at < after; ++at) {
      if (at > first) CHECK(found.top_log_probs[at] <= found.top_log_probs[at - 1]);
      if (found.top_tokens[at] == batch.targets[i]) CHECK(found.top_log_probs[at] == found.log_probs[i]);
    }
  }
}

void forward_case(cov_device* device, const Case& c, int32_t compute) {
  const std::vector<float> parameters = lively_parameters(c.shape, 11);
  const TestModel cpu(c.shape, parameters, 1, 0, compute);
  const DeviceModel gpu(device, c.shape, parameters, compute);
  const TestBatch batch(c.shape, c.sequences, c.length, 5);
  const size_t count = batch.tokens.size();
  const cov_forward_options options = {1, std::min(9, c.shape.vocab_size), 0.7f};
  ForwardResults expected(count, options.top_count), found(count, options.top_count);
  const cov_forward_output cpu_output = expected.output(), output = found.output();
  CHECK_OK(cov_model_forward(cpu, &batch.batch, &options, &cpu_output));
  CHECK_OK(cov_device_model_forward(gpu, &batch.batch, &options, &output));
  const std::vector<float> coefficients = Numbers(9).floats(static_cast<int64_t>(count));
  CHECK_OK(cov_model_backward(cpu, coefficients.data(), count));
  CHECK_OK(cov_device_model_backward(gpu, coefficients.data(), count));
  CHECK_CODE(cov_device_model_backward(gpu, coefficients.data(), count), COV_FAILED_PRECONDITION);
  const std::vector<float> gradients = gpu.read(COV_GRADIENTS);
  const float* const wanted = cpu.buffer(COV_GRADIENTS);
  if (compute == COV_COMPUTE_F32) {
    check_same(found, expected);
    CHECK_SAME(gradients.data(), wanted, gradients.size() * sizeof(float));
  } else {
    const TestModel exact(c.shape, parameters);
    std::vector<float> log_probs(count), entropy(count);
    const cov_forward_output exact_output = {log_probs.data(), entropy.data(), nullptr, nullptr};
    CHECK_OK(cov_model_forward(exact, &batch.batch, &options, &exact_output));
    CHECK_OK(cov_model_backward(exact, coefficients.data(), count));
    const auto check = [](const std::vector<float>& device_result, const std::vector<float>& cpu_result,
                          const float* target) {
      const double usual = difference(cpu_result, target);
      CHECK_NEAR(difference(device_result, target), 0, 2 * usual + 0.01);
    };
    check(found.log_probs, expected.log_probs, log_probs.data());
    check(found.entropy, expected.entropy, entropy.data());
    tops_agree(found, batch, options.top_count);
    check(gradients, {wanted, wanted + gradients.size()}, exact.buffer(COV_GRADIENTS));
  }
}

void step_case(cov_device* device, const Case& c) {
  const std::vector<float> parameters = lively_parameters(c.shape, 3);
  const TestModel cpu(c.shape, parameters);
  const DeviceModel gpu(device, c.shape, parameters);
  for (uint32_t step = 0; step < 3; ++step) {
    const TestBatch batch(c.shape, c.sequences, c.length, 20 + step);
    double expected = 0, found = 0;
    float expected_norm = 0, found_norm = 0;
    CHECK_OK(cov_model_train_step(cpu, &batch.batch, &kAdamw, &expected, &expected_norm));
    CHECK_OK(cov_device_model_train_step(gpu, &batch.batch, &kAdamw, &found, &found_norm));
    CHECK(found == expected);
    CHECK(found_norm == expected_norm);
  }
  CHECK(cov_device_model_step_count(gpu) == 3);
  for (cov_buffer which : {COV_PARAMETERS, COV_GRADIENTS, COV_FIRST_MOMENT, COV_SECOND_MOMENT}) {
    const std::vector<float> values = gpu.read(which);
    CHECK_SAME(values.data(), cpu.buffer(which), values.size() * sizeof(float));
  }
}

// Ten steps in bf16 twice: equal bits; and the loss falls.
void rerun(cov_device* device) {
  const cov_model_shape shape = {19, 16, 8, 1, 2, 1, 16, 1, 10000.0, 1e-5};
  const std::vector<float> parameters = lively_parameters(shape, 4);
  const TestBatch batch(shape, 2, 5, 77);
  std::vector<float> runs[2];
  for (std::vector<float>& run : runs) {
    const DeviceModel gpu(device, shape, parameters, COV_COMPUTE_BF16);
    double first = 0, last = 0;
    for (int step = 0; step < 10; ++step) {
      CHECK_OK(cov_device_model_train_step(gpu, &batch.batch, &kAdamw, &last, nullptr));
      if (step == 0) first = last;
    }
    CHECK(last < 0.8 * first);
    run = gpu.read(COV_PARAMETERS);
  }
  CHECK_SAME(runs[0].data(), runs[1].data(), runs[0].size() * sizeof(float));
}

// A sequence gets the same bits alone and among others, in bf16.
void batch_invariance(cov_device* device) {
  const cov_model_shape shape = kCases[0].shape;
  const DeviceModel gpu(device, shape, lively_parameters(shape, 4), COV_COMPUTE_BF16);
  const TestBatch batch(shape, 3, 9, 31);
  std::vector<float> all(27), one(9);
  const cov_forward_options options = {0, 0, 1.0f};
  const cov_forward_output all_output = {all.data(), nullptr, nullptr, nullptr};
  CHECK_OK(cov_device_model_forward(gpu, &batch.batch, &options, &all_output));
  for (size_t s = 0; s < 3; ++s) {
    const cov_batch alone = {batch.tokens.data() + 9 * s, batch.targets.data() + 9 * s, 1, 9};
    const cov_forward_output output = {one.data(), nullptr, nullptr, nullptr};
    CHECK_OK(cov_device_model_forward(gpu, &alone, &options, &output));
    CHECK_SAME(one.data(), all.data() + 9 * s, 9 * sizeof(float));
  }
}

void bad_input(cov_device* device) {
  const cov_model_shape shape = kCases[0].shape;
  std::vector<float> parameters = lively_parameters(shape, 4);
  const DeviceModel gpu(device, shape, parameters);
  TestBatch batch(shape, 1, 7, 31);
  cov_device_model* none = nullptr;
  CHECK_CODE(cov_device_model_create(device, &shape, 7, &none), COV_INVALID_ARGUMENT);
  CHECK(none == nullptr);
  CHECK_CODE(cov_device_model_read(gpu, 9, 0, 1, parameters.data()), COV_INVALID_ARGUMENT);
  CHECK_CODE(cov_device_model_read(gpu, 0, parameters.size(), 1, parameters.data()),
             COV_OUT_OF_RANGE);
  CHECK_CODE(cov_device_model_train_step(gpu, nullptr, &kAdamw, nullptr, nullptr),
             COV_INVALID_ARGUMENT);
  batch.tokens[2] = shape.vocab_size;
  CHECK_CODE(cov_device_model_train_step(gpu, &batch.batch, &kAdamw, nullptr, nullptr),
             COV_OUT_OF_RANGE);
  batch.tokens[2] = 0;
  std::vector<int32_t> targets(batch.targets.size(), -1);
  const cov_batch unscored = {batch.tokens.data(), targets.data(), 1, 7};
  CHECK_CODE(cov_device_model_train_step(gpu, &unscored, &kAdamw, nullptr, nullptr),
             COV_INVALID_ARGUMENT);
  // A weight that is not a number: no step is made, and the model goes on once it is repaired.
  const float nan = NAN, zero = 0.0f;
  CHECK_OK(cov_device_model_write(gpu, COV_PARAMETERS, 3, 1, &nan));
  batch.tokens[0] = 0;
  CHECK_CODE(cov_device_model_train_step(gpu, &batch.batch, &kAdamw, nullptr, nullptr),
             COV_NON_FINITE);
  CHECK(cov_device_model_step_count(gpu) == 0);
  CHECK_OK(cov_device_model_write(gpu, COV_PARAMETERS, 3, 1, &zero));
  CHECK_OK(cov_device_model_train_step(gpu, &batch.batch, &kAdamw, nullptr, nullptr));
  const DevicePointer small = open_device(1 << 14);
  CHECK_CODE(cov_device_model_create(small.get(), &shape, COV_COMPUTE_F32, &none), COV_MEMORY_LIMIT);
}

}  // namespace

int main() {
  if (!have_device()) return kSkipped;
  const DevicePointer device = open_device();
  for (const Case& c : kCases) {
    forward_case(device.get(), c, COV_COMPUTE_F32);
    forward_case(device.get(), c, COV_COMPUTE_BF16);
    step_case(device.get(), c);
  }
  rerun(device.get());
  batch_invariance(device.get());
  bad_input(device.get());
  TEST_MAIN_END("cuda train");
}
