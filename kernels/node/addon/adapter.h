// Adapters of a model (covenant/lora.h) on its engine thread.
#pragma once

#include <napi.h>

#include <atomic>
#include <memory>

#include "jobs.h"
#include "model_engine.h"

namespace covenant_node {

// Frees the adapters when nothing refers to them any more: neither the handle nor a view.
struct AdapterOwner {
  explicit AdapterOwner(std::shared_ptr<ModelEngine> engine) : model(std::move(engine)) {}
  ~AdapterOwner() {
    // Rarely a wait: only when the last view goes while a job of the model runs.
    const std::lock_guard lock(model->busy);
    calls.reset();
  }
  AdapterOwner(const AdapterOwner&) = delete;
  AdapterOwner& operator=(const AdapterOwner&) = delete;

  std::shared_ptr<ModelEngine> model;
  std::unique_ptr<AdapterCalls> calls;
};

struct Adapter {
  // Call with `busy` of the model held.
  void note() {
    if (owner != nullptr) noted.note(*owner->calls);
  }

  std::shared_ptr<AdapterOwner> owner;  // with `busy` held; null once released
  uint64_t length = 0;                  // floats in each buffer
  Noted noted;
};

// Engine thread: the model works with these adapters, or with none when null, from here on.
// COV_KERNELS_CLOSED when they are released.
cov_status use_adapter(ModelEngine& engine, const Adapter* adapter, Job& job);

// createAdapter({rank, alpha, targets, seed: bigint}) -> Promise of an object of the model's class
// whose calls work with the adapters. targets: bits of cov_lora_target.
void prepare_adapter(const Napi::CallbackInfo& info, std::shared_ptr<ModelEngine> engine, Job& job);

// merge(reversible) -> Promise<void>, unmerge() -> Promise<void>, release() -> Promise<void>
void prepare_merge(const Napi::CallbackInfo& info, std::shared_ptr<Adapter> adapter, Job& job);
void prepare_unmerge(std::shared_ptr<Adapter> adapter, Job& job);
void prepare_release(std::shared_ptr<Adapter> adapter, Job& job);

// What the class Model is made from: a model, and the adapters its calls use (null: none).
struct ModelHandle {
  // What learns; with `busy` held, of adapters that are not released.
  LearnedCalls& learned() const {
    if (adapter == nullptr) return *engine->calls;
    return *adapter->owner->calls;
  }

  std::shared_ptr<ModelEngine> engine;
  std::shared_ptr<Adapter> adapter;
};
Napi::Value new_model_object(Napi::Env env, ModelHandle handle);

}  // namespace covenant_node
