// A replica spread over stages: the bits of the CPU in fp32, for every number of stages.
#include "support.h"

namespace {

using namespace covenant_test;

void same_buffers(const ParallelModel& found, const TestModel& expected) {
  for (cov_buffer which : {COV_PARAMETERS, COV_GRADIENTS, COV_FIRST_MOMENT, COV_SECOND_MOMENT}) {
    const std::vector<float> values = found.read(which);
    CHECK_SAME(values.data(), expected.buffer(which), values.size() * sizeof(float));
  }
}

// One step, and one whose batch makes three groups of a single device when `groups` says so.
void steps(const cov_model_shape& shape, int32_t stages, bool groups) {
  const std::vector<float> parameters = lively_parameters(shape, 3);
  const TestModel cpu(shape, parameters);
  const ParallelModel gpus(stages, shape, parameters, {stages, COV_COMPUTE_F32, 0, 0});
  for (uint32_t step = 0; step < 2; ++step) {
    const bool large = step == 1 && groups;
    const TestBatch batch(shape, large ? 65 : 3, large ? 32 : 7, 20 + step);
    double expected = 0, found = 0;
    float expected_norm = 0, found_norm = 0;
    CHECK_OK(cov_model_train_step(cpu, &batch.batch, &kAdamw, &expected, &expected_norm));
    CHECK_OK(cov_parallel_model_train_step(gpus, &batch.batch, &kAdamw, &found, &found_norm));
    CHECK(found == expected);
    CHECK(found_norm == expected_norm);
  }
  CHECK(cov_parallel_model_step_count(gpus) == 2);
  same_buffers(gpus, cpu);
}

// Forward, gradients by coefficients twice, and a step from their sum.
void passes(const cov_model_shape& shape, int32_t stages) {
  const std::vector<float> parameters = lively_parameters(shape, 11);
  const TestModel cpu(shape, parameters);
  const ParallelModel gpus(stages, shape, parameters, {stages, COV_COMPUTE_F32, 0, 0});
  const TestBatch batch(shape, 33, 32, 5);  // two groups
  const size_t count = batch.tokens.size();
  ForwardResults expected(count, 3), found(count, 3);
  const cov_forward_output cpu_output = expected.output(), output = found.output();
  const std::vector<float> coefficients = Numbers(9).floats(static_cast<int64_t>(count));
  for (int round = 0; round < 2; ++round) {
    const cov_forward_options options = {1, 3, 0.7f};
    CHECK_OK(cov_model_forward(cpu, &batch.batch, &options, &cpu_output));
    CHECK_OK(cov_parallel_model_forward(gpus, &batch.batch, &options, &output));
    check_same(found, expected);
    CHECK_OK(cov_model_backward(cpu, coefficients.data(), count));
    CHECK_OK(cov_parallel_model_backward(gpus, coefficients.data(), count));
    CHECK_CODE(cov_parallel_model_backward(gpus, coefficients.data(), count),
               COV_FAILED_PRECONDITION);
  }
  same_buffers(gpus, cpu);
  float expected_norm = 0, found_norm = 0;
  CHECK_OK(cov_model_optimizer_step(cpu, &kAdamw, &expected_norm));
  CHECK_OK(cov_parallel_model_optimizer_step(gpus, &kAdamw, &found_norm));
  CHECK(found_norm == expected_norm);
  same_buffers(gpus, cpu);
  const cov_forward_options plain = {0, 3, 0.0f};
  CHECK_OK(cov_model_forward(cpu, &batch.batch, &plain, &cpu_output));
  CHECK_OK(cov_parallel_model_forward(gpus, &batch.batch, &plain, &output));
  check_same(found, expected);
}

// bf16 in many micro-batches: near a single device, and the same bits on a rerun.
void bf16(const cov_model_shape& shape, int32_t stages) {
  const std::vector<float> parameters = lively_parameters(shape, 4);
  const DevicePointer device = open_device();
  const TestBatch batch(shape, 9, 5, 77);
  const DeviceModel one(device.get(), shape, parameters, COV_COMPUTE_BF16);
  std::vector<float> runs[2];
  double expected = 0, found = 0;
  for (int step = 0; step < 3; ++step)
    CHECK_OK(cov_device_model_train_step(one, &batch.batch, &kAdamw, &expected, nullptr));
  for (std::vector<float>& run : runs) {
    const ParallelModel gpus(stages, shape, parameters, {stages, COV_COMPUTE_BF16, 0, 0});
    for (int step = 0; step < 3; ++step)
      CHECK_OK(cov_parallel_model_train_step(gpus, &batch.batch, &kAdamw, &found, nullptr));
    run = gpus.read(COV_PARAMETERS);
  }
  CHECK_NEAR(found / expected, 1.0, 2e-2);
  CHECK_SAME(runs[0].data(), runs[1].data(), runs[0].size() * sizeof(float));
}

// What each device holds adds up to one model, and no device holds all of it.
void memory(const cov_model_shape& shape, int32_t stages) {
  const ParallelModel gpus(stages, shape, lively_parameters(shape, 4),
                           {stages, COV_COMPUTE_F32, 0, 0});
  int32_t next = 0;
  for (int32_t place = 0; place < stages; ++place) {
    int32_t first = -1, layers = 0;
    uint64_t bytes = 0, peak = 0;
    CHECK_OK(cov_parallel_model_device(gpus, place, &first, &layers, &bytes, &peak));
    CHECK(first == next && layers >= 1);
    CHECK(bytes > 0 && peak >= bytes);
    next += layers;
  }
  CHECK(next == shape.layer_count);
  CHECK_CODE(cov_parallel_model_device(gpus, stages, nullptr, nullptr, nullptr, nullptr),
             COV_OUT_OF_RANGE);
}

}  // namespace

int main() {
  if (!have_devices(2)) return kSkipped;
  const int32_t most = std::min(4, cov_device_count());
  for (const cov_model_shape& shape : parallel_shapes()) {
    for (int32_t stages = 1; stages <= most; ++stages) {
      steps(shape, stages, false);
      memory(shape, stages);
    }
  }
  bf16(parallel_shapes()[1], most);
  const cov_model_shape tied = {11, 4, 3, 3, 2, 1, 64, 1, 10000.0, 1e-5};
  cov_model_shape untied = tied;
  untied.tie_word_embeddings = 0;
  steps(tied, std::min(3, most), true);
  passes(tied, 2);
  passes(untied, 2);
  TEST_MAIN_END("cuda layer split");
}
