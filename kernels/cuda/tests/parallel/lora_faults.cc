// What goes wrong with adapters on several devices: foreign models, numbers, memory, launches.
#include "../engine/adapters.h"

#include <algorithm>
#include <cstdlib>

#include "support.h"

namespace {

using namespace covenant_test;

constexpr cov_lora_options kOptions = {3, 6.0f, 127, 17};
constexpr cov_model_shape kShape = {19, 12, 10, 2, 2, 1, 64, 1, 10000.0, 1e-5};

using Adapters = DeviceAdapters<cov_parallel_model>;

cov_status train(cov_parallel_model* model) {
  const TestBatch batch(kShape, 4, 5, 9);
  return cov_parallel_model_train_step(model, &batch.batch, &kAdamw, nullptr, nullptr);
}

void refusals(int32_t stages) {
  const std::vector<float> parameters = lively_parameters(kShape, 3);
  const ParallelModel other(2, kShape, parameters, {2, COV_COMPUTE_F32, 0, 0});
  const ParallelModel model(2, kShape, parameters, {stages, COV_COMPUTE_BF16, 0, 0});
  cov_device_lora* lora = nullptr;
  const cov_lora_options bad = {0, 1.0f, 1, 0};
  CHECK_CODE(cov_parallel_model_create_lora(model, &bad, &lora), COV_INVALID_ARGUMENT);
  CHECK(lora == nullptr);
  CHECK_OK(cov_parallel_model_create_lora(model, &kOptions, &lora));
  CHECK_CODE(cov_parallel_model_use_lora(other, lora), COV_INVALID_ARGUMENT);
  CHECK_OK(cov_parallel_model_use_lora(model, lora));
  const uint64_t length = cov_device_lora_length(lora);
  float value = 0;
  CHECK_OK(cov_device_lora_read(lora, COV_PARAMETERS, length - 1, 1, &value));
  CHECK_CODE(cov_device_lora_read(lora, COV_PARAMETERS, length, 1, &value), COV_OUT_OF_RANGE);
  const float nan = NAN, zero = 0.0f;
  for (const uint64_t at : {uint64_t{1}, length - 2}) {
    CHECK_OK(cov_device_lora_write(lora, COV_PARAMETERS, at, 1, &nan));
    CHECK_CODE(train(model), COV_NON_FINITE);
    CHECK_OK(cov_device_lora_write(lora, COV_PARAMETERS, at, 1, &zero));
    CHECK_OK(train(model));
  }
  CHECK_OK(cov_device_lora_set_step_count(lora, 7));
  CHECK(cov_device_lora_step_count(lora) == 7);
  cov_device_lora_release(lora);  // while in use
  CHECK_OK(train(model));
}

// Gradients that have no norm are cleared, those of adapters that are not in use, too.
void no_norm(int32_t stages) {
  const ParallelModel model(2, kShape, lively_parameters(kShape, 3), {stages, COV_COMPUTE_F32, 0, 0});
  cov_device_lora* lora = nullptr;
  CHECK_OK(cov_parallel_model_create_lora(model, &kOptions, &lora));
  const uint64_t length = cov_device_lora_length(lora);
  const float nan = NAN;
  CHECK_OK(cov_device_lora_write(lora, COV_GRADIENTS, length - 1, 1, &nan));
  CHECK_CODE(cov_device_lora_optimizer_step(lora, &kAdamw, nullptr), COV_NON_FINITE);
  CHECK(cov_device_lora_step_count(lora) == 0);
  std::vector<float> gradients(length, 1.0f);
  CHECK_OK(cov_device_lora_read(lora, COV_GRADIENTS, 0, length, gradients.data()));
  CHECK(gradients == std::vector<float>(length, 0.0f));
  float norm = 1.0f;
  CHECK_OK(cov_device_lora_optimizer_step(lora, &kAdamw, &norm));
  CHECK(norm == 0.0f);
  cov_device_lora_release(lora);
}

// No room for more adapters, nor for what a reversible merge keeps.
void memory(int32_t stages) {
  const std::vector<float> parameters = lively_parameters(kShape, 3);
  cov_parallel_options options = {stages, COV_COMPUTE_F32, 0, 0};
  const cov_lora_options large = {1024, 1.0f, 127, 0};
  uint64_t limit = 0;
  {
    const ParallelModel model(2, kShape, parameters, options);
    const Adapters lora(model, kOptions, Numbers(4).floats(3 * 2 * 150, 0.1f));
    CHECK_OK(train(model));
    for (int32_t place = 0; place < 2; ++place) {
      uint64_t peak = 0;
      CHECK_OK(cov_parallel_model_device(model, place, nullptr, nullptr, nullptr, &peak));
      limit = std::max(limit, peak);
    }
  }
  options.memory_limit_bytes = limit + 256;
  const ParallelModel model(2, kShape, parameters, options);
  const Adapters lora(model, kOptions, Numbers(4).floats(3 * 2 * 150, 0.1f));
  CHECK_OK(train(model));
  cov_device_lora* none = nullptr;
  CHECK_CODE(cov_parallel_model_create_lora(model, &large, &none), COV_MEMORY_LIMIT);
  CHECK(none == nullptr);
  CHECK_OK(train(model));
  const uint64_t bytes = cov_device_lora_memory_bytes(lora);
  CHECK_CODE(cov_device_lora_merge(lora, 1), COV_MEMORY_LIMIT);
  CHECK(cov_device_lora_memory_bytes(lora) == bytes);
  CHECK(model.read(COV_PARAMETERS) == parameters);
  CHECK_OK(train(model));
  CHECK_OK(cov_device_lora_merge(lora, 0));
}

// Device 1 refuses every launch after the first `count` ones. True when the step was made nevertheless.
bool refused_launch(int32_t stages, int count, bool* closed) {
  const std::vector<float> parameters = lively_parameters(kShape, 3);
  const ParallelModel model(2, kShape, parameters, {stages, COV_COMPUTE_F32, 0, 0});
  const std::vector<float> values = Numbers(4).floats(3 * 2 * 150, 0.1f);
  const Adapters lora(model, kOptions, values);
  setenv("COVENANT_EMULATION_FAULT", ("1:" + std::to_string(count)).c_str(), 1);
  const cov_status status = train(model);
  unsetenv("COVENANT_EMULATION_FAULT");
  if (status.code == COV_OK) return true;
  CHECK(status.code == COV_INTERNAL);
  float value = 0;
  *closed = cov_device_lora_read(lora, COV_PARAMETERS, 0, 1, &value).code == COV_FAILED_PRECONDITION;
  if (*closed) return false;
  CHECK(lora.read(COV_PARAMETERS) == values);
  CHECK_OK(train(model));
  const ParallelModel fresh(2, kShape, parameters, {stages, COV_COMPUTE_F32, 0, 0});
  const Adapters again(fresh, kOptions, values);
  CHECK_OK(train(fresh));
  CHECK(again.read(COV_PARAMETERS) == lora.read(COV_PARAMETERS));
  return false;
}

void launches(int32_t stages) {
  bool closed = false;
  int count = 0;
  for (; !refused_launch(stages, count, &closed); count += 29) CHECK(!closed);
  CHECK(count > 29);
  // The last launch is the optimizer's, when device 0 has made its step.
  for (--count; refused_launch(stages, count, &closed); --count) CHECK(count > 0);
  CHECK(closed);
}

}  // namespace

int main() {
  if (!have_devices(2)) return kSkipped;
  for (const int32_t stages : {1, 2}) {
    refusals(stages);
    no_norm(stages);
    memory(stages);
    if (std::getenv("COVENANT_EMULATED_DEVICES") != nullptr) launches(stages);
  }
  TEST_MAIN_END("cuda parallel lora faults");
}
