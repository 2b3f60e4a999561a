// The same adapters of a model on the CPU and of one on devices, for tests.
#pragma once

#include "covenant/device_lora.h"
#include "covenant/lora.h"
#include "support.h"

namespace covenant_test {

inline cov_status create_lora(cov_device_model* model, const cov_lora_options& options,
                              cov_device_lora** lora) {
  return cov_device_model_create_lora(model, &options, lora);
}
inline cov_status create_lora(cov_parallel_model* model, const cov_lora_options& options,
                              cov_device_lora** lora) {
  return cov_parallel_model_create_lora(model, &options, lora);
}
inline cov_status use_lora(cov_device_model* model, cov_device_lora* lora) {
  return cov_device_model_use_lora(model, lora);
}
inline cov_status use_lora(cov_parallel_model* model, cov_device_lora* lora) {
  return cov_parallel_model_use_lora(model, lora);
}

// In use; B is not zero.
class CpuAdapters {
 public:
  CpuAdapters(cov_model* model, const cov_lora_options& options) {
    CHECK_OK(cov_lora_create(model, &options, &lora_));
    float* data = nullptr;
    uint64_t length = 0;
    CHECK_OK(cov_lora_buffer(lora_, COV_PARAMETERS, &data, &length));
    initial = {data, data + length};
    Numbers numbers(41);
    for (uint64_t i = 0; i < length; ++i) data[i] += 0.2f * numbers.next();
    CHECK_OK(cov_model_use_lora(model, lora_));
  }
  ~CpuAdapters() { cov_lora_release(lora_); }
  CpuAdapters(const CpuAdapters&) = delete;
  CpuAdapters& operator=(const CpuAdapters&) = delete;
  operator cov_lora*() const { return lora_; }  // NOLINT: implicit on purpose
  std::vector<float> read(cov_buffer which) const {
    float* data = nullptr;
    uint64_t length = 0;
    CHECK_OK(cov_lora_buffer(lora_, which, &data, &length));
    return {data, data + length};
  }
  std::vector<float> initial;  // before B was written

 private:
  cov_lora* lora_ = nullptr;
};

// In use, with the values given.
template <typename Model>
class DeviceAdapters {
 public:
  DeviceAdapters(Model* model, const cov_lora_options& options, const std::vector<float>& values) {
    CHECK_OK(create_lora(model, options, &lora_));
    CHECK(cov_device_lora_length(lora_) == values.size());
    initial = read(COV_PARAMETERS);
    CHECK_OK(cov_device_lora_write(lora_, COV_PARAMETERS, 0, values.size(), values.data()));
    CHECK_OK(use_lora(model, lora_));
  }
  ~DeviceAdapters() { cov_device_lora_release(lora_); }
  DeviceAdapters(const DeviceAdapters&) = delete;
  DeviceAdapters& operator=(const DeviceAdapters&) = delete;
  operator cov_device_lora*() const { return lora_; }  // NOLINT: implicit on purpose
  std::vector<float> read(cov_buffer which) const {
    std::vector<float> values(cov_device_lora_length(lora_));
    CHECK_OK(cov_device_lora_read(lora_, which, 0, values.size(), values.data()));
    return values;
  }
  std::vector<float> initial;  // before the values were written

 private:
  cov_device_lora* lora_ = nullptr;
};

template <typename Adapters>
void check_equal(const Adapters& found, const CpuAdapters& expected) {
  for (const cov_buffer which :
       {COV_PARAMETERS, COV_GRADIENTS, COV_FIRST_MOMENT, COV_SECOND_MOMENT}) {
    const std::vector<float> values = found.read(which), wanted = expected.read(which);
    CHECK_SAME(values.data(), wanted.data(), wanted.size() * sizeof(float));
  }
}

}  // namespace covenant_test
