// What goes wrong on one of several devices: bad arguments, memory, launches, numbers, foreign pointers.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <limits>

#include "engine/optimizer.cuh"
#include "support.h"

namespace {

using namespace covenant_test;

constexpr cov_model_shape kShape = {19, 12, 10, 2, 2, 1, 64, 1, 10000.0, 1e-5};

void bad_arguments() {
  cov_parallel_model* none = nullptr;
  const int32_t devices[] = {0, 1, 1, 99};
  const auto create = [&](int32_t first, int32_t count, cov_parallel_options options) {
    return cov_parallel_model_create(devices + first, count, &kShape, &options, &none);
  };
  CHECK_CODE(create(0, 3, {1, 0, 0, 0}), COV_INVALID_ARGUMENT);  // one device twice
  CHECK_CODE(create(3, 1, {1, 0, 0, 0}), COV_OUT_OF_RANGE);
  CHECK_CODE(create(0, 0, {1, 0, 0, 0}), COV_INVALID_ARGUMENT);
  CHECK_CODE(create(0, 2, {3, 0, 0, 0}), COV_INVALID_ARGUMENT);
  CHECK_CODE(create(0, 1, {2, 0, 0, 0}), COV_INVALID_ARGUMENT);
  CHECK_CODE(create(0, 2, {1, 7, 0, 0}), COV_INVALID_ARGUMENT);
  CHECK_CODE(create(0, 2, {1, 0, 7, 0}), COV_INVALID_ARGUMENT);
  CHECK_CODE(create(0, 2, {1, 0, 0, 1 << 12}), COV_MEMORY_LIMIT);
  CHECK_CODE(create(0, 2, {2, 0, 0, 1 << 12}), COV_MEMORY_LIMIT);
  CHECK(none == nullptr);
  CHECK_CODE(cov_parallel_model_train_step(nullptr, nullptr, nullptr, nullptr, nullptr),
             COV_INVALID_ARGUMENT);
  cov_parallel_model_release(nullptr);
  const ParallelModel model(2, kShape, lively_parameters(kShape, 3), {2, 0, 0, 0});
  TestBatch batch(kShape, 2, 5, 1);
  float value = 0;
  CHECK_CODE(cov_parallel_model_read_replica(model, 1, 0, 0, 1, &value), COV_OUT_OF_RANGE);
  CHECK_CODE(cov_parallel_model_read(model, 0, cov_parameter_count(&kShape), 1, &value),
             COV_OUT_OF_RANGE);
  CHECK_CODE(cov_parallel_model_backward(model, &value, 1), COV_FAILED_PRECONDITION);
  batch.tokens[0] = -1;
  CHECK_CODE(cov_parallel_model_train_step(model, &batch.batch, &kAdamw, nullptr, nullptr),
             COV_OUT_OF_RANGE);
}

void expect_parameters(const ParallelModel& model, const std::vector<float>& expected) {
  const std::vector<float> found = model.read(COV_PARAMETERS);
  CHECK_SAME(found.data(), expected.data(), found.size() * sizeof(float));
}

// The model makes the step that a fresh one makes.
void expect_usable(const ParallelModel& model, const std::vector<float>& parameters,
                   const cov_parallel_options& options) {
  expect_parameters(model, parameters);
  const TestBatch batch(kShape, 4, 5, 9);
  const ParallelModel fresh(2, kShape, parameters, options);
  double expected = 0, found = 0;
  CHECK_OK(cov_parallel_model_train_step(fresh, &batch.batch, &kAdamw, &expected, nullptr));
  CHECK_OK(cov_parallel_model_train_step(model, &batch.batch, &kAdamw, &found, nullptr));
  CHECK(found == expected);
  expect_parameters(model, fresh.read(COV_PARAMETERS));
}

// Enough memory for a small batch, and for the larger rotary table that the large one leaves.
void memory(int32_t stages) {
  cov_parallel_options options = {stages, COV_COMPUTE_F32, 0, 0};
  const std::vector<float> parameters = lively_parameters(kShape, 3);
  const TestBatch small(kShape, 4, 5, 9), large(kShape, 24, 60, 9);
  {
    const ParallelModel model(2, kShape, parameters, options);
    CHECK_OK(cov_parallel_model_train_step(model, &small.batch, &kAdamw, nullptr, nullptr));
    for (int32_t place = 0; place < 2; ++place) {
      uint64_t peak = 0;
      CHECK_OK(cov_parallel_model_device(model, place, nullptr, nullptr, nullptr, &peak));
      options.memory_limit_bytes = std::max(options.memory_limit_bytes, peak);
    }
  }
  options.memory_limit_bytes += 1 << 16;
  const ParallelModel model(2, kShape, parameters, options);
  CHECK_CODE(cov_parallel_model_train_step(model, &large.batch, &kAdamw, nullptr, nullptr),
             COV_MEMORY_LIMIT);
  expect_usable(model, parameters, options);
}

void not_finite(int32_t stages) {
  const cov_parallel_options options = {stages, COV_COMPUTE_F32, 0, 0};
  std::vector<float> parameters = lively_parameters(kShape, 3);
  const ParallelModel model(2, kShape, parameters, options);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const uint64_t at = parameters.size() - 40;
  CHECK_OK(cov_parallel_model_write(model, COV_PARAMETERS, at, 1, &nan));
  const TestBatch batch(kShape, 4, 5, 9);
  CHECK_CODE(cov_parallel_model_train_step(model, &batch.batch, &kAdamw, nullptr, nullptr),
             COV_NON_FINITE);
  CHECK(cov_parallel_model_step_count(model) == 0);
  CHECK_OK(cov_parallel_model_write(model, COV_PARAMETERS, at, 1, &parameters[at]));
  expect_usable(model, parameters, options);
}

// Device 1 refuses every launch after the first `count` ones. True when the step was made nevertheless.
bool refused_launch(int32_t stages, int count, bool* closed) {
  const cov_parallel_options options = {stages, COV_COMPUTE_F32, 0, 0};
  const std::vector<float> parameters = lively_parameters(kShape, 3);
  const ParallelModel model(2, kShape, parameters, options);
  const TestBatch batch(kShape, 4, 5, 9);
  setenv("COVENANT_EMULATION_FAULT", ("1:" + std::to_string(count)).c_str(), 1);
  const cov_status status =
      cov_parallel_model_train_step(model, &batch.batch, &kAdamw, nullptr, nullptr);
  unsetenv("COVENANT_EMULATION_FAULT");
  if (status.code == COV_OK) return true;
  CHECK(status.code == COV_INTERNAL);
  CHECK(std::strstr(status.message, "launch failure") != nullptr);
  float value = 0;
  *closed = cov_parallel_model_read(model, COV_PARAMETERS, 0, 1, &value).code ==
            COV_FAILED_PRECONDITION;
  if (!*closed) expect_usable(model, parameters, options);
  return false;
}

void launches(int32_t stages) {
  bool closed = false;
  int count = 0;
  for (; !refused_launch(stages, count, &closed); count += 16) CHECK(!closed);
  CHECK(count > 16);
  // The last launch is the optimizer's, when device 0 has made its step.
  for (--count; refused_launch(stages, count, &closed); --count) CHECK(count > 0);
  CHECK(closed);
}

// Memory of one device is not for another one: a copy is refused, a kernel is ended.
void foreign_memory() {
  using namespace covenant::cuda;
  cov_device* opened = nullptr;
  CHECK_OK(cov_device_open(1, 0, &opened));
  const DevicePointer second(opened), first = open_device();
  void* memory = nullptr;
  const float value = 1.0f;
  CHECK_OK(cov_device_allocate(second.get(), 256, &memory));
  CHECK_OK(cov_device_upload(second.get(), memory, &value, sizeof value));
  CHECK_CODE(cov_device_upload(first.get(), memory, &value, sizeof value), COV_INTERNAL);
  const pid_t child = fork();
  if (child == 0) {
    Device a(0, 0), b(1, 0);
    b.activate();
    const Buffer<float> x(b, 64);
    a.activate();
    const Buffer<uint16_t> y(a, 64);
    to_bf16(a.stream(), x.data(), 64, y.data());
    a.finish();
    std::_Exit(0);
  }
  int status = 0;
  CHECK(waitpid(child, &status, 0) == child);
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

}  // namespace

int main() {
  if (!have_devices(2)) return kSkipped;
  bad_arguments();
  for (const int32_t stages : {1, 2}) {
    memory(stages);
    not_finite(stages);
    if (std::getenv("COVENANT_EMULATED_DEVICES") != nullptr) launches(stages);
  }
  if (std::getenv("COVENANT_EMULATED_DEVICES") != nullptr) foreign_memory();
  TEST_MAIN_END("cuda parallel faults");
}
