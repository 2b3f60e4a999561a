// A model on CUDA devices: on one, which also generates, or spread over several.
#include <utility>

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
    if (options.top_count > 0)
      return cov_error(COV_UNSUPPORTED, "on a device, forward reports no most probable tokens");
    const cov_device_forward_options how{options.keep_activations, options.temperature};
    const cov_device_forward_output to{output.log_probs, output.entropy};
    return Api::forward(model_, &batch, &how, &to);
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
  cov_status use_no_adapter() override { return cov_ok(); }
  cov_status create_adapter(const cov_lora_options&, std::unique_ptr<AdapterCalls>&,
                            uint64_t*) override {
    return cov_error(COV_UNSUPPORTED, "a model on a device has no adapters");
  }
  int64_t step_count() const override { return Api::step_count(model_); }
  cov_status set_step_count(int64_t count) override { return Api::set_step_count(model_, count); }

 protected:
  typename Api::Model* model_ = nullptr;
};

// Closed after the model, which is a part of it.
struct OpenDevice {
  ~OpenDevice() { cov_device_close(handle); }
  cov_device* handle = nullptr;
};

class DeviceCalls final : private OpenDevice, public OnDevices<OneDevice> {
 public:
  cov_status create(const cov_model_shape& shape, const DeviceModelOptions& options) {
    const int32_t products = options.vendor_products ? COV_PRODUCTS_VENDOR : 0;
    cov_status status =
        cov_device_open(options.devices.front(), options.memory_limit_bytes, &handle);
    if (status.code == COV_OK)
      status = cov_device_model_create(handle, &shape, options.compute | products, &model_);
    return status;
  }

  cov_status generate(const std::vector<cov_generate_request>& requests,
                      const cov_generate_options& options, cov_generate_output* outputs) override {
    return cov_device_model_generate(model_, requests.data(),
                                     static_cast<int32_t>(requests.size()), &options, outputs);
  }
  cov_status replay(const std::vector<cov_replay_request>& requests,
                    const cov_replay_options& options, const cov_replay_output* outputs) override {
    return cov_device_model_replay(model_, requests.data(), static_cast<int32_t>(requests.size()),
                                   &options, outputs);
  }
  void memory(uint64_t* bytes, uint64_t* peak_bytes) override {
    (void)cov_device_memory(handle, bytes, peak_bytes);
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

  cov_status generate(const std::vector<cov_generate_request>&, const cov_generate_options&,
                      cov_generate_output*) override {
    return one_device_only();
  }
  cov_status replay(const std::vector<cov_replay_request>&, const cov_replay_options&,
                    const cov_replay_output*) override {
    return one_device_only();
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
  static cov_status one_device_only() {
    return cov_error(COV_UNSUPPORTED, "a model on several devices does not generate or replay");
  }

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
