// A model on the CPU.
#include <algorithm>
#include <utility>

#include "model_calls.h"

namespace covenant_node {
namespace {

class CpuCalls final : public ModelCalls {
 public:
  ~CpuCalls() override { cov_model_release(model_); }

  cov_status create(const cov_model_shape& shape, const cov_model_options& options) {
    return cov_model_create(&shape, &options, &model_);
  }
  cov_model* model() const { return model_; }

  cov_status read(int32_t which, uint64_t offset, uint64_t count, float* values) override {
    float* data = nullptr;
    const cov_status status = range(which, offset, count, &data);
    if (status.code == COV_OK) std::copy_n(data, count, values);
    return status;
  }
  cov_status write(int32_t which, uint64_t offset, uint64_t count, const float* values) override {
    float* data = nullptr;
    const cov_status status = range(which, offset, count, &data);
    if (status.code == COV_OK) std::copy_n(values, count, data);
    return status;
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
  cov_status range(int32_t which, uint64_t offset, uint64_t count, float** data) {
    uint64_t length = 0;
    cov_status status = cov_model_buffer(model_, which, data, &length);
    if (status.code == COV_OK) status = check_range(length, offset, count);
    if (status.code == COV_OK) *data += offset;
    return status;
  }

  cov_model* model_ = nullptr;
};

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

cov_status check_range(uint64_t length, uint64_t offset, uint64_t count) {
  if (offset <= length && count <= length - offset) return cov_ok();
  return cov_error(COV_OUT_OF_RANGE, "%llu floats from %llu pass the end of the buffer (%llu)",
                   static_cast<unsigned long long>(count), static_cast<unsigned long long>(offset),
                   static_cast<unsigned long long>(length));
}

}  // namespace covenant_node
