#include "adapter.h"

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

}  // namespace

cov_status use_adapter(ModelEngine& engine, const Adapter* adapter, Job& job) {
  if (adapter == nullptr) return engine.calls->use_no_adapter();
  if (adapter->owner != nullptr) return adapter->owner->calls->use();
  const cov_status status = cov_error(COV_FAILED_PRECONDITION, "the adapter is released");
  job.refuse(status, "COV_KERNELS_CLOSED");
  return status;
}

void prepare_adapter(const Napi::CallbackInfo& info, std::shared_ptr<ModelEngine> engine,
                     Job& job) {
  const cov_lora_options options = lora_options_of(info[0]);
  const auto adapter = std::make_shared<Adapter>();
  adapter->owner = std::make_shared<AdapterOwner>(engine);
  job.run = [options, adapter, raw = engine.get()] {
    const cov_status status =
        raw->calls->create_adapter(options, adapter->owner->calls, &adapter->length);
    if (status.code == COV_OK) adapter->note();
    return status;
  };
  job.result = [adapter, engine](Napi::Env env) { return new_model_object(env, {engine, adapter}); };
}

void prepare_merge(const Napi::CallbackInfo& info, std::shared_ptr<Adapter> adapter, Job& job) {
  if (!info[0].IsBoolean()) throw invalid(info.Env(), "reversible must be true or false");
  const bool reversible = info[0].As<Napi::Boolean>().Value();
  job.run = [adapter, reversible] { return adapter->owner->calls->merge(reversible); };
}

void prepare_unmerge(std::shared_ptr<Adapter> adapter, Job& job) {
  job.run = [adapter] { return adapter->owner->calls->unmerge(); };
}

void prepare_release(std::shared_ptr<Adapter> adapter, Job& job) {
  job.run = [adapter] {
    adapter->owner.reset();
    adapter->noted.memory_bytes = 0;
    return cov_ok();
  };
}

}  // namespace covenant_node
