// Adapters of a model (covenant/lora.h) on its engine thread.
#pragma once

#include <napi.h>

#include <atomic>
#include <memory>

#include "covenant/lora.h"
#include "jobs.h"
#include "model_engine.h"

namespace covenant_node {

// Frees the adapters when nothing refers to them any more: neither the handle nor a view.
struct LoraOwner {
  explicit LoraOwner(std::shared_ptr<ModelEngine> engine) : model(std::move(engine)) {}
  ~LoraOwner() {
    // Rarely a wait: only when the last view goes while a job of the model runs.
    const std::lock_guard lock(model->busy);
    cov_lora_release(lora);
  }
  LoraOwner(const LoraOwner&) = delete;
  LoraOwner& operator=(const LoraOwner&) = delete;

  std::shared_ptr<ModelEngine> model;
  cov_lora* lora = nullptr;
};

struct Adapter {
  // Copies what getters show. Call with `busy` of the model held.
  void note() {
    if (owner == nullptr) return;
    steps = cov_lora_step_count(owner->lora);
    memory_bytes = cov_lora_memory_bytes(owner->lora);
  }

  std::shared_ptr<LoraOwner> owner;  // with `busy` held; null once released
  uint64_t length = 0;               // floats in each buffer
  std::atomic<int64_t> steps{0};
  std::atomic<uint64_t> memory_bytes{0};
};

// Engine thread: the model works with these adapters, or with none when null, from here on.
// COV_KERNELS_CLOSED when they are released. A model on devices has none.
cov_status use_adapter(ModelEngine& engine, const Adapter* adapter, Job& job);

// Engine thread, adapters in use: copies to and from buffer `which` (a cov_buffer).
cov_status read_adapter(Adapter& adapter, int32_t which, uint64_t offset, uint64_t count,
                        float* values);
cov_status write_adapter(Adapter& adapter, int32_t which, uint64_t offset, uint64_t count,
                         const float* values);

// createAdapter({rank, alpha, targets, seed: bigint}) -> Promise of an object of the model's class
// whose calls work with the adapters. targets: bits of cov_lora_target.
void prepare_adapter(const Napi::CallbackInfo& info, std::shared_ptr<ModelEngine> engine, Job& job);

// merge(reversible) -> Promise<void>, unmerge() -> Promise<void>, release() -> Promise<void>
void prepare_merge(const Napi::CallbackInfo& info, std::shared_ptr<Adapter> adapter, Job& job);
void prepare_unmerge(std::shared_ptr<Adapter> adapter, Job& job);
void prepare_release(std::shared_ptr<Adapter> adapter, Job& job);

// What the class Model is made from: a model, and the adapters its calls use (null: none).
struct ModelHandle {
  std::shared_ptr<ModelEngine> engine;
  std::shared_ptr<Adapter> adapter;
};
Napi::Value new_model_object(Napi::Env env, ModelHandle handle);

}  // namespace covenant_node
