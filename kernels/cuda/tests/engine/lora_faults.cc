// What goes wrong with adapters on a device: bad arguments, numbers, memory.
#include <algorithm>
#include <functional>
#include <memory>

#include "adapters.h"

namespace {

using namespace covenant_test;

constexpr cov_adamw_options kAdamw = {2e-2f, 0.9f, 0.95f, 1e-8f, 0.1f, 1.0f};
constexpr cov_model_shape kShape = {37, 24, 20, 2, 4, 2, 64, 0, 10000.0, 1e-5};
constexpr cov_lora_options kOptions = {3, 6.0f, 127, 17};

using OnDevice = DeviceAdapters<cov_device_model>;

std::vector<float> lively_adapters() { return Numbers(41).floats(3 * 2 * 300, 0.2f); }

uint64_t used_bytes(cov_device* device) {
  uint64_t bytes = 0, peak = 0;
  CHECK_OK(cov_device_memory(device, &bytes, &peak));
  return bytes;
}

void bad_options(cov_device* device) {
  const std::vector<float> parameters = lively_parameters(kShape, 11);
  const DeviceModel model(device, kShape, parameters);
  cov_device_lora* lora = nullptr;
  for (const cov_lora_options& bad :
       {cov_lora_options{0, 1, 1, 0}, {-1, 1, 1, 0}, {1025, 1, 1, 0}, {1, 0, 1, 0}, {1, NAN, 1, 0},
        {1, INFINITY, 1, 0}, {1, 1, 0, 0}, {1, 1, 128, 0}, {1, 1, -1, 0}}) {
    CHECK_CODE(cov_device_model_create_lora(model, &bad, &lora), COV_INVALID_ARGUMENT);
    CHECK(lora == nullptr);
  }
  CHECK_CODE(cov_device_model_create_lora(model, nullptr, &lora), COV_INVALID_ARGUMENT);
  CHECK_CODE(cov_device_model_create_lora(nullptr, &kOptions, &lora), COV_INVALID_ARGUMENT);
  CHECK_CODE(cov_device_model_create_lora(model, &kOptions, nullptr), COV_INVALID_ARGUMENT);
}

void bad_arguments(cov_device* device) {
  const std::vector<float> parameters = lively_parameters(kShape, 11);
  const DeviceModel model(device, kShape, parameters), other(device, kShape, parameters);
  const OnDevice lora(model, kOptions, lively_adapters());
  const uint64_t length = cov_device_lora_length(lora);
  float value = 0;
  CHECK_CODE(cov_device_model_use_lora(other, lora), COV_INVALID_ARGUMENT);
  CHECK_CODE(cov_device_model_use_lora(nullptr, lora), COV_INVALID_ARGUMENT);
  CHECK_CODE(cov_device_lora_read(lora, COV_PARAMETERS, length, 1, &value), COV_OUT_OF_RANGE);
  CHECK_CODE(cov_device_lora_read(lora, COV_PARAMETERS, 1, UINT64_MAX, &value), COV_OUT_OF_RANGE);
  CHECK_CODE(cov_device_lora_read(lora, COV_PARAMETERS, 0, 1, nullptr), COV_INVALID_ARGUMENT);
  CHECK_OK(cov_device_lora_read(lora, COV_PARAMETERS, length, 0, nullptr));
  CHECK_CODE(cov_device_lora_write(lora, 4, 0, 1, &value), COV_INVALID_ARGUMENT);
  CHECK_CODE(cov_device_lora_write(lora, -1, 0, 1, &value), COV_INVALID_ARGUMENT);
  CHECK_CODE(cov_device_lora_write(lora, 0, length - 1, 2, &value), COV_OUT_OF_RANGE);
  CHECK_CODE(cov_device_lora_set_step_count(lora, -1), COV_INVALID_ARGUMENT);
  CHECK_CODE(cov_device_lora_optimizer_step(lora, nullptr, nullptr), COV_INVALID_ARGUMENT);
  CHECK_CODE(cov_device_lora_unmerge(lora), COV_FAILED_PRECONDITION);
  CHECK_CODE(cov_device_model_optimizer_step(model, &kAdamw, nullptr), COV_FAILED_PRECONDITION);
  cov_device_lora_release(nullptr);
  CHECK(cov_device_lora_length(nullptr) == 0 && cov_device_lora_step_count(nullptr) == 0);
  CHECK(cov_device_lora_memory_bytes(nullptr) == 0);
  CHECK(cov_device_lora_memory_bytes(lora) >= length * sizeof(float));
  CHECK_CODE(cov_device_lora_read(nullptr, 0, 0, 1, &value), COV_INVALID_ARGUMENT);
  CHECK_CODE(cov_device_lora_write(nullptr, 0, 0, 1, &value), COV_INVALID_ARGUMENT);
  CHECK_CODE(cov_device_lora_set_step_count(nullptr, 1), COV_INVALID_ARGUMENT);
  CHECK_CODE(cov_device_lora_optimizer_step(nullptr, &kAdamw, nullptr), COV_INVALID_ARGUMENT);
  CHECK_CODE(cov_device_lora_merge(nullptr, 0), COV_INVALID_ARGUMENT);
  CHECK_CODE(cov_device_lora_unmerge(nullptr), COV_INVALID_ARGUMENT);
}

// No step from numbers that are none; the adapters stay and the next step is made.
void not_finite(cov_device* device, int32_t compute) {
  const DeviceModel model(device, kShape, lively_parameters(kShape, 11), compute);
  const OnDevice lora(model, kOptions, lively_adapters());
  const TestBatch batch(kShape, 2, 7, 5);
  const float nan = NAN;
  CHECK_OK(cov_device_lora_write(lora, COV_GRADIENTS, 5, 1, &nan));
  CHECK_CODE(cov_device_lora_optimizer_step(lora, &kAdamw, nullptr), COV_NON_FINITE);
  const std::vector<float> none = lora.read(COV_GRADIENTS);
  CHECK(std::all_of(none.begin(), none.end(), [](float g) { return g == 0.0f; }));
  CHECK(lora.read(COV_PARAMETERS) == lively_adapters());
  CHECK_OK(cov_device_lora_write(lora, COV_PARAMETERS, 3, 1, &nan));
  CHECK_CODE(cov_device_model_train_step(model, &batch.batch, &kAdamw, nullptr, nullptr),
             COV_NON_FINITE);
  const std::vector<float> initial = lively_adapters();
  CHECK_OK(cov_device_lora_write(lora, COV_PARAMETERS, 3, 1, &initial[3]));
  CHECK(lora.read(COV_PARAMETERS) == initial);
  CHECK(cov_device_lora_step_count(lora) == 0);
  CHECK_OK(cov_device_model_train_step(model, &batch.batch, &kAdamw, nullptr, nullptr));
  CHECK(cov_device_lora_step_count(lora) == 1);
}

// Adapters keep their model; a step of the base is possible again without them.
void lifetimes(cov_device* device) {
  const uint64_t before = used_bytes(device);
  cov_device_model* model = nullptr;
  CHECK_OK(cov_device_model_create(device, &kShape, COV_COMPUTE_F32, &model));
  cov_device_lora *one = nullptr, *two = nullptr;
  CHECK_OK(cov_device_model_create_lora(model, &kOptions, &one));
  CHECK_OK(cov_device_model_create_lora(model, &kOptions, &two));
  CHECK_OK(cov_device_model_use_lora(model, one));
  CHECK_OK(cov_device_lora_merge(one, 1));
  CHECK_OK(cov_device_lora_merge(two, 1));
  cov_device_lora_release(one);
  CHECK_OK(cov_device_model_optimizer_step(model, &kAdamw, nullptr));
  CHECK_OK(cov_device_lora_unmerge(two));
  cov_device_model_release(model);
  float value = 0;
  CHECK_OK(cov_device_lora_read(two, COV_PARAMETERS, 0, 1, &value));
  CHECK(value != 0.0f);
  cov_device_lora_release(two);
  CHECK(used_bytes(device) <= before + (8 << 20));  // scratch stays with the device
}

// A call with `spare` bytes left, for ever larger ones: it fails with COV_MEMORY_LIMIT and leaves what
// `state` reads, or does its work; after a failure the same call does it.
struct Sweep {
  const DevicePointer& device;
  uint64_t limit;
  std::function<void()> prepare;
  std::function<cov_status()> call;
  std::function<std::vector<float>()> state;
};

void run(const Sweep& sweep) {
  sweep.prepare();
  CHECK_OK(sweep.call());
  const std::vector<float> expected = sweep.state();
  int failures = 0;
  for (uint64_t spare = 0;; spare += spare / 4 + 512) {
    sweep.prepare();
    const std::vector<float> before = sweep.state();
    const uint64_t used = used_bytes(sweep.device.get());
    void* blocker = nullptr;
    CHECK(sweep.limit > used + spare);
    CHECK_OK(cov_device_allocate(sweep.device.get(), sweep.limit - used - spare, &blocker));
    const cov_status status = sweep.call();
    if (status.code != COV_OK) {
      CHECK(status.code == COV_MEMORY_LIMIT);
      ++failures;
      CHECK(sweep.state() == before);
    }
    cov_device_free(sweep.device.get(), blocker);
    if (status.code == COV_OK) break;
    CHECK_OK(sweep.call());
    CHECK(sweep.state() == expected);
  }
  CHECK(failures > 0);
  CHECK(sweep.state() == expected);
}

void memory(int32_t compute) {
  constexpr uint64_t kLimit = 16 << 20;
  const TestBatch batch(kShape, 2, 7, 5);
  DevicePointer device;
  std::unique_ptr<DeviceModel> model;
  cov_device_lora* lora = nullptr;
  // A device without scratch memory, so that every allocation of the call can fail.
  const auto fresh = [&](bool with_adapters) {
    cov_device_lora_release(lora);
    lora = nullptr;
    model.reset();
    device.reset();
    device = open_device(kLimit);
    model = std::make_unique<DeviceModel>(device.get(), kShape, lively_parameters(kShape, 11), compute);
    if (!with_adapters) return;
    CHECK_OK(cov_device_model_create_lora(*model, &kOptions, &lora));
    const std::vector<float> values = lively_adapters();
    CHECK_OK(cov_device_lora_write(lora, COV_PARAMETERS, 0, values.size(), values.data()));
    CHECK_OK(cov_device_model_use_lora(*model, lora));
  };
  const auto values = [&] {
    std::vector<float> all = model->read(COV_PARAMETERS), own(cov_device_lora_length(lora));
    if (lora == nullptr) return all;
    CHECK_OK(cov_device_lora_read(lora, COV_PARAMETERS, 0, own.size(), own.data()));
    all.insert(all.end(), own.begin(), own.end());
    return all;
  };
  const auto sweep = [&](bool with_adapters, const std::function<cov_status()>& call) {
    run({device, kLimit, [&] { fresh(with_adapters); }, call, values});
  };
  sweep(false, [&] { return cov_device_model_create_lora(*model, &kOptions, &lora); });
  sweep(true, [&] {
    return cov_device_model_train_step(*model, &batch.batch, &kAdamw, nullptr, nullptr);
  });
  sweep(true, [&] { return cov_device_lora_merge(lora, 1); });
  cov_device_lora_release(lora);
}

}  // namespace

int main() {
  if (!have_device()) return kSkipped;
  const DevicePointer device = open_device();
  bad_options(device.get());
  bad_arguments(device.get());
  lifetimes(device.get());
  for (const int32_t compute : {COV_COMPUTE_F32, COV_COMPUTE_BF16}) {
    not_finite(device.get(), compute);
    memory(compute);
  }
  TEST_MAIN_END("cuda lora faults");
}
