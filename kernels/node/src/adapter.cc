#include "adapter.h"

#include <algorithm>
#include <string>
#include <utility>

#include "convert.h"

namespace covenant_node {
namespace {

cov_lora_options lora_options_of(const Napi::Value& value) {
  const Napi::Object object = object_of(value, "options");
  cov_lora_options options{};
  options.rank = integer(object, "rank", 1, 1024);
  options.alpha = static_cast<float>(number(object, "alpha"));
  options.targets = integer(object, "targets", 1, 127);
  options.seed = seed_number_of(object.Get("seed"), "seed");
  return options;
}

cov_status range_of(const Adapter& adapter, int32_t which, uint64_t offset, uint64_t count,
                    float** data) {
  uint64_t length = 0;
  cov_status status = cov_lora_buffer(adapter.owner->lora, which, data, &length);
  if (status.code == COV_OK) status = check_range(length, offset, count);
  if (status.code == COV_OK) *data += offset;
  return status;
}

}  // namespace

cov_status use_adapter(ModelEngine& engine, const Adapter* adapter, Job& job) {
  if (engine.on_device) return cov_ok();
  if (adapter == nullptr) return cov_model_use_lora(engine.model, nullptr);
  if (adapter->owner != nullptr) return cov_model_use_lora(engine.model, adapter->owner->lora);
  const cov_status status = cov_error(COV_FAILED_PRECONDITION, "the adapter is released");
  job.refuse(status, "COV_KERNELS_CLOSED");
  return status;
}

cov_status read_adapter(Adapter& adapter, int32_t which, uint64_t offset, uint64_t count,
                        float* values) {
  float* data = nullptr;
  const cov_status status = range_of(adapter, which, offset, count, &data);
  if (status.code == COV_OK) std::copy_n(data, count, values);
  return status;
}

cov_status write_adapter(Adapter& adapter, int32_t which, uint64_t offset, uint64_t count,
                         const float* values) {
  float* data = nullptr;
  const cov_status status = range_of(adapter, which, offset, count, &data);
  if (status.code == COV_OK) std::copy_n(values, count, data);
  return status;
}

void prepare_adapter(const Napi::CallbackInfo& info, std::shared_ptr<ModelEngine> engine,
                     Job& job) {
  const cov_lora_options options = lora_options_of(info[0]);
  const auto adapter = std::make_shared<Adapter>();
  adapter->owner = std::make_shared<LoraOwner>(engine);
  job.run = [options, adapter, raw = engine.get()] {
    cov_lora** const lora = &adapter->owner->lora;
    float* parameters = nullptr;
    cov_status status = cov_lora_create(raw->model, &options, lora);
    if (status.code == COV_OK)
      status = cov_lora_buffer(*lora, COV_PARAMETERS, &parameters, &adapter->length);
    if (status.code == COV_OK) adapter->note();
    return status;
  };
  job.result = [adapter, engine](Napi::Env env) { return new_model_object(env, {engine, adapter}); };
}

void prepare_merge(const Napi::CallbackInfo& info, std::shared_ptr<Adapter> adapter, Job& job) {
  if (!info[0].IsBoolean()) throw invalid(info.Env(), "reversible must be true or false");
  const int32_t reversible = info[0].As<Napi::Boolean>().Value() ? 1 : 0;
  job.run = [adapter, reversible] { return cov_lora_merge(adapter->owner->lora, reversible); };
}

void prepare_unmerge(std::shared_ptr<Adapter> adapter, Job& job) {
  job.run = [adapter] { return cov_lora_unmerge(adapter->owner->lora); };
}

void prepare_release(std::shared_ptr<Adapter> adapter, Job& job) {
  job.run = [adapter] {
    adapter->owner.reset();
    adapter->memory_bytes = 0;
    return cov_ok();
  };
}

}  // namespace covenant_node
