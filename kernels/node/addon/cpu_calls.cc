// A model on the CPU, and its adapters.
#include <utility>

#include "generator_calls.h"
#include "model_calls.h"

namespace covenant_node {
namespace {

struct CpuGenerator {
  using Model = cov_model;
  using Generator = cov_generator;
  static constexpr auto create = cov_generator_create;
  static constexpr auto release = cov_generator_release;
  static constexpr auto refresh = cov_generator_refresh;
  static constexpr auto submit = cov_generator_submit;
  static constexpr auto cancel = cov_generator_cancel;
  static constexpr auto step = cov_generator_step;
  static constexpr auto get_state = cov_generator_get_state;
};

class CpuCalls final : public ModelCalls {
 public:
  ~CpuCalls() override { cov_model_release(model_); }

  cov_status create(const cov_model_shape& shape, const cov_model_options& options) {
    return cov_model_create(&shape, &options, &model_);
  }
  cov_model* model() const { return model_; }

  cov_status buffer(int32_t which, float** data, uint64_t* length) override {
    return cov_model_buffer(model_, which, data, length);
  }
  cov_status use_no_adapter() override { return cov_model_use_lora(model_, nullptr); }
  cov_status create_adapter(const cov_lora_options& options, std::unique_ptr<AdapterCalls>& adapter,
                            uint64_t* length) override;
  cov_status create_generator(const cov_generator_options& options,
                              std::unique_ptr<GeneratorCalls>& generator) override {
    // It retains the model.
    return make_generator<CpuGenerator>(model_, options, nullptr, generator);
  }

  cov_status forward(const cov_batch& batch, const cov_forward_options& options,
                     const cov_forward_output& output) override {
    return cov_model_forward(model_, &batch, &options, &output);
  }
  cov_status backward(const float* coefficients, uint64_t count) override {
    return cov_model_backward(model_, coefficients, count);
  }
  cov_status optimizer_step(const cov_adamw_options& options, float* gradient_norm) override {
    return cov_model_optimizer_step(model_, &options, gradient_norm);
  }
  cov_status train_step(const cov_batch& batch, const cov_adamw_options& options, double* loss,
                        float* gradient_norm) override {
    return cov_model_train_step(model_, &batch, &options, loss, gradient_norm);
  }
  cov_status generate(const std::vector<cov_generate_request>& requests,
                      const cov_generate_options& options, cov_generate_output* outputs) override {
    return cov_model_generate(model_, requests.data(), static_cast<int32_t>(requests.size()),
                              &options, outputs);
  }
  cov_status replay(const std::vector<cov_replay_request>& requests,
                    const cov_replay_options& options, const cov_replay_output* outputs) override {
    return cov_model_replay(model_, requests.data(), static_cast<int32_t>(requests.size()),
                            &options, outputs);
  }

  int64_t step_count() const override { return cov_model_step_count(model_); }
  cov_status set_step_count(int64_t count) override {
    return cov_model_set_step_count(model_, count);
  }
  void memory(uint64_t* bytes, uint64_t* peak_bytes) override {
    *bytes = cov_model_memory_bytes(model_);
    *peak_bytes = cov_model_memory_peak_bytes(model_);
  }

 private:
  cov_model* model_ = nullptr;
};

class CpuAdapter final : public AdapterCalls {
 public:
  explicit CpuAdapter(cov_model* model) : model_(model) {}
  ~CpuAdapter() override { cov_lora_release(lora_); }

  cov_status create(const cov_lora_options& options) {
    return cov_lora_create(model_, &options, &lora_);
  }

  cov_status buffer(int32_t which, float** data, uint64_t* length) override {
    return cov_lora_buffer(lora_, which, data, length);
  }
  cov_status optimizer_step(const cov_adamw_options& options, float* gradient_norm) override {
    return cov_lora_optimizer_step(lora_, &options, gradient_norm);
  }
  int64_t step_count() const override { return cov_lora_step_count(lora_); }
  cov_status set_step_count(int64_t count) override {
    return cov_lora_set_step_count(lora_, count);
  }
  void memory(uint64_t* bytes, uint64_t* peak_bytes) override {
    *bytes = *peak_bytes = cov_lora_memory_bytes(lora_);
  }

  cov_status use() override { return cov_model_use_lora(model_, lora_); }
  cov_status merge(bool reversible) override { return cov_lora_merge(lora_, reversible ? 1 : 0); }
  cov_status unmerge() override { return cov_lora_unmerge(lora_); }

 private:
  cov_model* model_;  // retained by the adapters
  cov_lora* lora_ = nullptr;
};

cov_status CpuCalls::create_adapter(const cov_lora_options& options,
                                    std::unique_ptr<AdapterCalls>& adapter, uint64_t* length) {
  auto made = std::make_unique<CpuAdapter>(model_);
  float* parameters = nullptr;
  cov_status status = made->create(options);
  if (status.code == COV_OK) status = made->buffer(COV_PARAMETERS, &parameters, length);
  if (status.code == COV_OK) adapter = std::move(made);
  return status;
}

}  // namespace

cov_status cpu_calls(const cov_model_shape& shape, const cov_model_options& options,
                     std::unique_ptr<ModelCalls>& calls, cov_model** model) {
  auto made = std::make_unique<CpuCalls>();
  const cov_status status = made->create(shape, options);
  if (status.code != COV_OK) return status;
  *model = made->model();
  calls = std::move(made);
  return status;
}

}  // namespace covenant_node
