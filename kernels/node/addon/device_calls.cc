// A model on CUDA devices: on one, which also generates, or spread over several. And its adapters.
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "covenant/device_generator.h"
#include "generator_calls.h"
#include "model_calls.h"

namespace covenant_node {
namespace {

// The calls that models on one and on several devices have alike.
struct OneDevice {
  using Model = cov_device_model;
  static constexpr auto release = cov_device_model_release;
  static constexpr auto read = cov_device_model_read;
  static constexpr auto write = cov_device_model_write;
  static constexpr auto forward = cov_device_model_forward;
  static constexpr auto backward = cov_device_model_backward;
  static constexpr auto optimizer_step = cov_device_model_optimizer_step;
  static constexpr auto train_step = cov_device_model_train_step;
  static constexpr auto step_count = cov_device_model_step_count;
  static constexpr auto set_step_count = cov_device_model_set_step_count;
  static constexpr auto create_generator = cov_device_generator_create;
  static constexpr auto create_lora = cov_device_model_create_lora;
  static constexpr auto use_lora = cov_device_model_use_lora;
  static constexpr auto generate = cov_device_model_generate;
  static constexpr auto replay = cov_device_model_replay;
};
struct SeveralDevices {
  using Model = cov_parallel_model;
  static constexpr auto release = cov_parallel_model_release;
  static constexpr auto read = cov_parallel_model_read;
  static constexpr auto write = cov_parallel_model_write;
  static constexpr auto forward = cov_parallel_model_forward;
  static constexpr auto backward = cov_parallel_model_backward;
  static constexpr auto optimizer_step = cov_parallel_model_optimizer_step;
  static constexpr auto train_step = cov_parallel_model_train_step;
  static constexpr auto step_count = cov_parallel_model_step_count;
  static constexpr auto set_step_count = cov_parallel_model_set_step_count;
  static constexpr auto create_generator = cov_parallel_generator_create;
  static constexpr auto create_lora = cov_parallel_model_create_lora;
  static constexpr auto use_lora = cov_parallel_model_use_lora;
  static constexpr auto generate = cov_parallel_model_generate;
  static constexpr auto replay = cov_parallel_model_replay;
};

// A device that closes after everything on it: its model, and adapters that live longer.
class OpenDevice {
 public:
  OpenDevice() = default;
  OpenDevice(const OpenDevice&) = delete;
  OpenDevice& operator=(const OpenDevice&) = delete;
  ~OpenDevice() { cov_device_close(handle); }
  cov_device* handle = nullptr;
};

template <typename Api>
class DeviceAdapter final : public AdapterCalls {
 public:
  DeviceAdapter(typename Api::Model* model, std::shared_ptr<OpenDevice> device)
      : device_(std::move(device)), model_(model) {}
  ~DeviceAdapter() override { cov_device_lora_release(lora_); }

  cov_status create(const cov_lora_options& options, uint64_t* length) {
    const cov_status status = Api::create_lora(model_, &options, &lora_);
    if (status.code == COV_OK) *length = cov_device_lora_length(lora_);
    return status;
  }

  cov_status read(int32_t which, uint64_t offset, uint64_t count, float* values) override {
    return cov_device_lora_read(lora_, which, offset, count, values);
  }
  cov_status write(int32_t which, uint64_t offset, uint64_t count, const float* values) override {
    return cov_device_lora_write(lora_, which, offset, count, values);
  }
  cov_status optimizer_step(const cov_adamw_options& options, float* gradient_norm) override {
    return cov_device_lora_optimizer_step(lora_, &options, gradient_norm);
  }
  int64_t step_count() const override { return cov_device_lora_step_count(lora_); }
  cov_status set_step_count(int64_t count) override {
    return cov_device_lora_set_step_count(lora_, count);
  }
  void memory(uint64_t* bytes, uint64_t* peak_bytes) override {
    *bytes = *peak_bytes = cov_device_lora_memory_bytes(lora_);
  }

  cov_status use() override { return Api::use_lora(model_, lora_); }
  cov_status merge(bool reversible) override {
    return cov_device_lora_merge(lora_, reversible ? 1 : 0);
  }
  cov_status unmerge() override { return cov_device_lora_unmerge(lora_); }

 private:
  std::shared_ptr<OpenDevice> device_;
  typename Api::Model* model_;  // retained by the adapters
  cov_device_lora* lora_ = nullptr;
};

// A generator over the model of `Api`.
template <typename Api>
struct DeviceGenerator {
  using Model = typename Api::Model;
  using Generator = cov_device_generator;
  static constexpr auto create = Api::create_generator;
  static constexpr auto release = cov_device_generator_release;
  static constexpr auto refresh = cov_device_generator_refresh;
  static constexpr auto submit = cov_device_generator_submit;
  static constexpr auto cancel = cov_device_generator_cancel;
  static constexpr auto step = cov_device_generator_step;
  static constexpr auto get_state = cov_device_generator_get_state;
};

template <typename Api>
class OnDevices : public ModelCalls {
 public:
  ~OnDevices() override { Api::release(model_); }

  cov_status read(int32_t which, uint64_t offset, uint64_t count, float* values) override {
    return Api::read(model_, which, offset, count, values);
  }
  cov_status write(int32_t which, uint64_t offset, uint64_t count, const float* values) override {
    return Api::write(model_, which, offset, count, values);
  }
  cov_status forward(const cov_batch& batch, const cov_forward_options& options,
                     const cov_forward_output& output) override {
    return Api::forward(model_, &batch, &options, &output);
  }
  cov_status backward(const float* coefficients, uint64_t count) override {
    return Api::backward(model_, coefficients, count);
  }
  cov_status optimizer_step(const cov_adamw_options& options, float* gradient_norm) override {
    return Api::optimizer_step(model_, &options, gradient_norm);
  }
  cov_status train_step(const cov_batch& batch, const cov_adamw_options& options, double* loss,
                        float* gradient_norm) override {
    return Api::train_step(model_, &batch, &options, loss, gradient_norm);
  }
  cov_status generate(const std::vector<cov_generate_request>& requests,
                      const cov_generate_options& options, cov_generate_output* outputs) override {
    return Api::generate(model_, requests.data(), static_cast<int32_t>(requests.size()), &options,
                         outputs);
  }
  cov_status replay(const std::vector<cov_replay_request>& requests,
                    const cov_replay_options& options, const cov_replay_output* outputs) override {
    return Api::replay(model_, requests.data(), static_cast<int32_t>(requests.size()), &options,
                       outputs);
  }
  cov_status use_no_adapter() override { return Api::use_lora(model_, nullptr); }
  int64_t step_count() const override { return Api::step_count(model_); }
  cov_status set_step_count(int64_t count) override { return Api::set_step_count(model_, count); }

  cov_status create_adapter(const cov_lora_options& options, std::unique_ptr<AdapterCalls>& adapter,
                            uint64_t* length) override {
    auto made = std::make_unique<DeviceAdapter<Api>>(model_, device_);
    const cov_status status = made->create(options, length);
    if (status.code == COV_OK) adapter = std::move(made);
    return status;
  }
  cov_status create_generator(const cov_generator_options& options,
                              std::unique_ptr<GeneratorCalls>& generator) override {
    return make_generator<DeviceGenerator<Api>>(model_, options, device_, generator);
  }

 protected:
  std::shared_ptr<OpenDevice> device_;  // of a model on one
  typename Api::Model* model_ = nullptr;
};

class DeviceCalls final : public OnDevices<OneDevice> {
 public:
  cov_status create(const cov_model_shape& shape, const DeviceModelOptions& options) {
    const int32_t products = options.vendor_products ? COV_PRODUCTS_VENDOR : 0;
    device_ = std::make_shared<OpenDevice>();
    cov_device** const handle = &device_->handle;
    cov_status status =
        cov_device_open(options.devices.front(), options.memory_limit_bytes, handle);
    if (status.code == COV_OK)
      status = cov_device_model_create(*handle, &shape, options.compute | products, &model_);
    return status;
  }

  void memory(uint64_t* bytes, uint64_t* peak_bytes) override {
    (void)cov_device_memory(device_->handle, bytes, peak_bytes);
  }
};

class ParallelCalls final : public OnDevices<SeveralDevices> {
 public:
  cov_status create(const cov_model_shape& shape, const DeviceModelOptions& options) {
    cov_parallel_options chosen{};
    chosen.stages = options.stages;
    chosen.compute = options.compute;
    chosen.collectives = options.collectives;
    chosen.memory_limit_bytes = options.memory_limit_bytes;
    devices_ = static_cast<int32_t>(options.devices.size());
    return cov_parallel_model_create(options.devices.data(), devices_, &shape, &chosen, &model_);
  }
  const char* report() const { return cov_parallel_model_report(model_); }
  cov_status place(int32_t at, DevicePlace& place) {
    return cov_parallel_model_device(model_, at, &place.first_layer, &place.layers, nullptr,
                                     nullptr);
  }

  void memory(uint64_t* bytes, uint64_t* peak_bytes) override {
    *bytes = *peak_bytes = 0;
    for (int32_t at = 0; at < devices_; ++at) {
      uint64_t now = 0, peak = 0;
      (void)cov_parallel_model_device(model_, at, nullptr, nullptr, &now, &peak);
      *bytes += now;
      *peak_bytes += peak;
    }
  }

 private:
  int32_t devices_ = 0;
};

cov_status on_one(const cov_model_shape& shape, const DeviceModelOptions& options,
                  std::unique_ptr<ModelCalls>& calls, std::vector<DevicePlace>& places,
                  std::string& report) {
  auto made = std::make_unique<DeviceCalls>();
  const int32_t device = options.devices.front();
  cov_device_info info{};
  cov_status status = made->create(shape, options);
  if (status.code == COV_OK) status = cov_device_info_at(device, &info);
  if (status.code != COV_OK) return status;
  places = {{device, 0, shape.layer_count}};
  report = "all layers on CUDA device " + std::to_string(device) + ": " + info.name;
  calls = std::move(made);
  return status;
}

cov_status on_several(const cov_model_shape& shape, const DeviceModelOptions& options,
                      std::unique_ptr<ModelCalls>& calls, std::vector<DevicePlace>& places,
                      std::string& report) {
  if (options.vendor_products)
    return cov_error(COV_UNSUPPORTED, "products of the vendor are for a model on one device");
  auto made = std::make_unique<ParallelCalls>();
  cov_status status = made->create(shape, options);
  for (size_t at = 0; status.code == COV_OK && at < options.devices.size(); ++at) {
    DevicePlace& place = places.emplace_back();
    place.device = options.devices[at];
    status = made->place(static_cast<int32_t>(at), place);
  }
  if (status.code != COV_OK) return status;
  report = made->report();
  calls = std::move(made);
  return status;
}

}  // namespace

cov_status device_calls(const cov_model_shape& shape, const DeviceModelOptions& options,
                        std::unique_ptr<ModelCalls>& calls, std::vector<DevicePlace>& places,
                        std::string& report) {
  return (options.devices.size() == 1 ? on_one : on_several)(shape, options, calls, places, report);
}

}  // namespace covenant_node
