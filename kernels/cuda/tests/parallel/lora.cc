// Adapters on several devices. One replica: the CPU's bits in fp32. Several replicas: gradients, norms and
// losses within 1e-5 of it, equal bits on all replicas and on every run. No adapters over several stages.
#include "../engine/adapters.h"

#include <cstdlib>
#include <functional>

#include "support.h"

namespace {

using namespace covenant_test;

constexpr cov_lora_options kOptions = {3, 6.0f, 127, 17};
constexpr cov_model_shape kShape = {19, 12, 10, 2, 2, 1, 64, 1, 10000.0, 1e-5};

using Adapters = DeviceAdapters<cov_parallel_model>;

void check_replicas(const ParallelModel& model, int32_t count) {
  const std::vector<float> first = model.read_replica(0, COV_PARAMETERS);
  for (int32_t r = 1; r < count; ++r) CHECK(model.read_replica(r, COV_PARAMETERS) == first);
}

std::vector<float> equals_cpu(int32_t devices, int32_t collectives) {
  const cov_model_shape shape = devices == 1 ? parallel_shapes()[0] : kShape;
  const std::vector<float> parameters = lively_parameters(shape, 3);
  const TestModel cpu(shape, parameters);
  const CpuAdapters expected(cpu, kOptions);
  const ParallelModel model(devices, shape, parameters, {1, COV_COMPUTE_F32, collectives, 0});
  const Adapters found(model, kOptions, expected.read(COV_PARAMETERS));
  CHECK(found.initial == expected.initial);
  const double tolerance = devices == 1 ? 0 : 1e-5;
  const TestBatch batch(shape, 5, 9, 5);
  const size_t count = batch.tokens.size();
  const std::vector<float> coefficients = Numbers(7).floats(static_cast<int64_t>(count));
  std::vector<float> log_probs(count), cpu_log_probs(count);
  const cov_forward_options cpu_keep = {1, 0, 1.0f};
  const cov_forward_output cpu_output = {cpu_log_probs.data(), nullptr, nullptr, nullptr};
  const cov_device_forward_options keep = {1, 1.0f};
  const cov_device_forward_output output = {log_probs.data(), nullptr};
  CHECK_OK(cov_model_forward(cpu, &batch.batch, &cpu_keep, &cpu_output));
  CHECK_OK(cov_parallel_model_forward(model, &batch.batch, &keep, &output));
  CHECK(log_probs == cpu_log_probs);  // sequences do not meet
  CHECK_OK(cov_model_backward(cpu, coefficients.data(), count));
  CHECK_OK(cov_parallel_model_backward(model, coefficients.data(), count));
  CHECK_NEAR(difference(found.read(COV_GRADIENTS), expected.read(COV_GRADIENTS).data()), 0, tolerance);
  float norm = 0, cpu_norm = 0;
  CHECK_OK(cov_lora_optimizer_step(expected, &kAdamw, &cpu_norm));
  CHECK_OK(cov_device_lora_optimizer_step(found, &kAdamw, &norm));
  CHECK_NEAR(norm, cpu_norm, tolerance * static_cast<double>(cpu_norm));
  for (int step = 0; step < 2; ++step) {
    double loss = 0, cpu_loss = 0;
    CHECK_OK(cov_model_train_step(cpu, &batch.batch, &kAdamw, &cpu_loss, &cpu_norm));
    CHECK_OK(cov_parallel_model_train_step(model, &batch.batch, &kAdamw, &loss, &norm));
    CHECK_NEAR(loss, cpu_loss, 10 * tolerance);
  }
  if (devices == 1) check_equal(found, expected);
  CHECK(cov_device_lora_step_count(found) == 3 && cov_parallel_model_step_count(model) == 0);
  CHECK_CODE(cov_parallel_model_optimizer_step(model, &kAdamw, nullptr), COV_FAILED_PRECONDITION);
  CHECK(model.read(COV_PARAMETERS) == parameters);
  const std::vector<float> trained = found.read(COV_PARAMETERS);

  // What is merged shows that all replicas have the same adapters.
  CHECK_OK(cov_device_lora_merge(found, 1));
  check_replicas(model, devices);
  CHECK_CODE(cov_parallel_model_train_step(model, &batch.batch, &kAdamw, nullptr, nullptr),
             COV_FAILED_PRECONDITION);
  CHECK_OK(cov_device_lora_unmerge(found));
  CHECK(model.read(COV_PARAMETERS) == parameters);
  CHECK_OK(cov_device_lora_merge(found, 0));
  check_replicas(model, devices);
  CHECK(model.read(COV_PARAMETERS) != parameters);
  CHECK_OK(cov_parallel_model_use_lora(model, nullptr));
  CHECK_OK(cov_parallel_model_train_step(model, &batch.batch, &kAdamw, nullptr, nullptr));
  return trained;
}

void refusals() {
  const std::vector<float> parameters = lively_parameters(kShape, 3);
  const ParallelModel split(2, kShape, parameters, {2, COV_COMPUTE_F32, 0, 0});
  cov_device_lora* lora = nullptr;
  CHECK_CODE(cov_parallel_model_create_lora(split, &kOptions, &lora), COV_UNSUPPORTED);
  CHECK(lora == nullptr);
  const TestBatch batch(kShape, 4, 5, 9);
  CHECK_OK(cov_parallel_model_train_step(split, &batch.batch, &kAdamw, nullptr, nullptr));
  const ParallelModel model(2, kShape, parameters, {1, COV_COMPUTE_BF16, 0, 0});
  const cov_lora_options bad = {0, 1.0f, 1, 0};
  CHECK_CODE(cov_parallel_model_create_lora(model, &bad, &lora), COV_INVALID_ARGUMENT);
  CHECK_OK(cov_parallel_model_create_lora(model, &kOptions, &lora));
  CHECK_CODE(cov_parallel_model_use_lora(split, lora), COV_INVALID_ARGUMENT);
  CHECK_OK(cov_parallel_model_use_lora(model, lora));
  const float nan = NAN, zero = 0.0f;
  CHECK_OK(cov_device_lora_write(lora, COV_PARAMETERS, 1, 1, &nan));
  CHECK_CODE(cov_parallel_model_train_step(model, &batch.batch, &kAdamw, nullptr, nullptr),
             COV_NON_FINITE);
  CHECK_OK(cov_device_lora_write(lora, COV_PARAMETERS, 1, 1, &zero));
  CHECK_OK(cov_parallel_model_train_step(model, &batch.batch, &kAdamw, nullptr, nullptr));
  cov_device_lora_release(lora);
  CHECK_OK(cov_parallel_model_train_step(model, &batch.batch, &kAdamw, nullptr, nullptr));
}

// Device 1 refuses every launch after the first `count` ones. True when the step was made nevertheless.
bool refused_launch(int count, bool* closed) {
  const std::vector<float> parameters = lively_parameters(kShape, 3);
  const ParallelModel model(2, kShape, parameters, {1, COV_COMPUTE_F32, 0, 0});
  const std::vector<float> values = Numbers(4).floats(3 * 2 * 150, 0.1f);
  const Adapters lora(model, kOptions, values);
  const TestBatch batch(kShape, 4, 5, 9);
  const auto step = [&] {
    return cov_parallel_model_train_step(model, &batch.batch, &kAdamw, nullptr, nullptr);
  };
  setenv("COVENANT_EMULATION_FAULT", ("1:" + std::to_string(count)).c_str(), 1);
  const cov_status status = step();
  unsetenv("COVENANT_EMULATION_FAULT");
  if (status.code == COV_OK) return true;
  CHECK(status.code == COV_INTERNAL);
  float value = 0;
  *closed = cov_device_lora_read(lora, COV_PARAMETERS, 0, 1, &value).code == COV_FAILED_PRECONDITION;
  if (*closed) return false;
  CHECK(lora.read(COV_PARAMETERS) == values);
  CHECK_OK(step());
  const ParallelModel fresh(2, kShape, parameters, {1, COV_COMPUTE_F32, 0, 0});
  const Adapters again(fresh, kOptions, values);
  CHECK_OK(cov_parallel_model_train_step(fresh, &batch.batch, &kAdamw, nullptr, nullptr));
  CHECK(again.read(COV_PARAMETERS) == lora.read(COV_PARAMETERS));
  return false;
}

void launches() {
  bool closed = false;
  int count = 0;
  for (; !refused_launch(count, &closed); count += 29) CHECK(!closed);
  CHECK(count > 29);
  // The last launch is the optimizer's, when device 0 has made its step.
  for (--count; refused_launch(count, &closed); --count) CHECK(count > 0);
  CHECK(closed);
}

}  // namespace

int main() {
  if (!have_device()) return kSkipped;
  if (cov_device_count() < 2) {
    std::printf("skipped: several devices are needed\n");
    return kSkipped;
  }
  equals_cpu(1, COV_COLLECTIVES_ORDERED);
  CHECK(equals_cpu(2, COV_COLLECTIVES_ORDERED) == equals_cpu(2, COV_COLLECTIVES_ORDERED));
  if (cov_device_count() > 3) equals_cpu(4, COV_COLLECTIVES_ORDERED);
  equals_cpu(2, COV_COLLECTIVES_NCCL);
  refusals();
  if (std::getenv("COVENANT_EMULATED_DEVICES") != nullptr) launches();
  TEST_MAIN_END("cuda parallel lora");
}
