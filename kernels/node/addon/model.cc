// The class Model: a model with an engine thread of its own, or adapters of one. Outputs are typed
// arrays that the caller allocated, so they are not copied on the way.
#include <atomic>
#include <functional>
#include <memory>
#include <mutex>

#include "adapter.h"
#include "bindings.h"
#include "convert.h"
#include "generation.h"
#include "generator.h"
#include "jobs.h"
#include "model_engine.h"
#include "training.h"

namespace covenant_node {
namespace {

class Model : public Napi::ObjectWrap<Model> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(
        env, "Model",
        {InstanceMethod<&Model::view>("view"), InstanceMethod<&Model::length>("length"),
         InstanceMethod<&Model::read>("read"), InstanceMethod<&Model::write>("write"),
         InstanceMethod<&Model::forward>("forward"),
         InstanceMethod<&Model::backward>("backward"),
         InstanceMethod<&Model::optimizer_step>("optimizerStep"),
         InstanceMethod<&Model::train_step>("trainStep"),
         InstanceMethod<&Model::generate>("generate"), InstanceMethod<&Model::replay>("replay"),
         InstanceMethod<&Model::create_generator>("createGenerator"),
         InstanceMethod<&Model::create_adapter>("createAdapter"),
         InstanceMethod<&Model::merge>("merge"), InstanceMethod<&Model::unmerge>("unmerge"),
         InstanceMethod<&Model::release>("release"),
         InstanceMethod<&Model::step_count>("stepCount"),
         InstanceMethod<&Model::set_step_count>("setStepCount"),
         InstanceMethod<&Model::memory>("memory"), InstanceMethod<&Model::close>("close")});
  }

  // Made by new_model_object only, which passes a shared engine.
  explicit Model(const Napi::CallbackInfo& info) : Napi::ObjectWrap<Model>(info) {
    if (!info[0].IsExternal()) throw invalid(info.Env(), "a model is made by Model.create");
    const ModelHandle& handle = *info[0].As<Napi::External<ModelHandle>>().Data();
    engine_ = handle.engine;
    adapter_ = handle.adapter;
  }

 private:
  std::unique_ptr<Job> new_job(const Napi::CallbackInfo& info) {
    auto job = std::make_unique<Job>(info.Env(), addon_data(info.Env()).mailbox);
    job->pin(info.This());
    return job;
  }

  Napi::Value submit(std::unique_ptr<Job> job) {
    job->run = [engine = engine_.get(), adapter = adapter_, raw = job.get(),
                run = std::move(job->run)] {
      cov_status status = use_adapter(*engine, adapter.get(), *raw);
      if (status.code == COV_OK) status = run();
      if (adapter != nullptr) adapter->note();
      return status;
    };
    return engine_->submit(std::move(job));
  }

  using Prepare = void(const Napi::CallbackInfo&, const ModelHandle&, Job&);
  Napi::Value prepared(const Napi::CallbackInfo& info, Prepare* prepare) {
    auto job = new_job(info);
    prepare(info, {engine_, adapter_}, *job);
    return submit(std::move(job));
  }

  void require_open(Napi::Env env) const {
    if (engine_->queue->closed())
      throw error_with_code(env, "COV_KERNELS_CLOSED", "the model is closed");
  }

  const Noted& noted() const { return adapter_ == nullptr ? engine_->noted : adapter_->noted; }

  // With `busy` held.
  LearnedCalls& learned(Napi::Env env) const {
    if (adapter_ != nullptr && adapter_->owner == nullptr)
      throw error_with_code(env, "COV_KERNELS_CLOSED", "the adapter is released");
    return ModelHandle{engine_, adapter_}.learned();
  }

  void require_adapter(Napi::Env env) const {
    if (adapter_ == nullptr) throw invalid(env, "this is a model and not an adapter");
  }

  // (which: 0..3) -> Float32Array over the live buffer
  Napi::Value view(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    require_open(env);
    const int32_t which = integer_value(info[0], "buffer", COV_PARAMETERS, COV_SECOND_MOMENT);
    float* data = nullptr;
    uint64_t length = 0;
    // Buffers other than the parameters are allocated on first use, which must not meet a running
    // job.
    const std::lock_guard lock(engine_->busy);
    throw_if_failed(env, learned(env).buffer(which, &data, &length));
    std::function<void()> release;
    if (adapter_ == nullptr) {
      cov_model* const model = engine_->model;
      cov_model_retain(model);
      release = [model] { cov_model_release(model); };
    } else {
      adapter_->note();
      release = [owner = adapter_->owner]() mutable { owner.reset(); };
    }
    engine_->note();
    const Napi::ArrayBuffer buffer =
        adopt(env, data, length * sizeof(float), std::move(release), false);
    return Napi::Float32Array::New(env, length, buffer, 0);
  }

  // () -> floats in each buffer
  Napi::Value length(const Napi::CallbackInfo& info) {
    const uint64_t length = adapter_ == nullptr ? engine_->length : adapter_->length;
    return Napi::Number::New(info.Env(), static_cast<double>(length));
  }

  // See training.h
  Napi::Value read(const Napi::CallbackInfo& info) { return prepared(info, prepare_read); }
  Napi::Value write(const Napi::CallbackInfo& info) { return prepared(info, prepare_write); }
  Napi::Value forward(const Napi::CallbackInfo& info) { return prepared(info, prepare_forward); }
  Napi::Value backward(const Napi::CallbackInfo& info) { return prepared(info, prepare_backward); }
  Napi::Value optimizer_step(const Napi::CallbackInfo& info) {
    return prepared(info, prepare_optimizer_step);
  }
  Napi::Value train_step(const Napi::CallbackInfo& info) {
    return prepared(info, prepare_train_step);
  }

  // See generation.h
  Napi::Value generate(const Napi::CallbackInfo& info) { return prepared(info, prepare_generate); }
  Napi::Value replay(const Napi::CallbackInfo& info) { return prepared(info, prepare_replay); }

  // See generator.h
  Napi::Value create_generator(const Napi::CallbackInfo& info) {
    return prepared(info, prepare_generator);
  }

  // See adapter.h
  Napi::Value create_adapter(const Napi::CallbackInfo& info) {
    auto job = new_job(info);
    prepare_adapter(info, engine_, *job);
    return engine_->submit(std::move(job));
  }

  Napi::Value merge(const Napi::CallbackInfo& info) {
    require_adapter(info.Env());
    auto job = new_job(info);
    prepare_merge(info, adapter_, *job);
    return submit(std::move(job));
  }

  Napi::Value unmerge(const Napi::CallbackInfo& info) {
    require_adapter(info.Env());
    auto job = new_job(info);
    prepare_unmerge(adapter_, *job);
    return submit(std::move(job));
  }

  Napi::Value release(const Napi::CallbackInfo& info) {
    require_adapter(info.Env());
    auto job = new_job(info);
    prepare_release(adapter_, *job);
    return engine_->submit(std::move(job));
  }

  // () -> number
  Napi::Value step_count(const Napi::CallbackInfo& info) {
    return Napi::Number::New(info.Env(), static_cast<double>(noted().steps.load()));
  }

  // (count) -> void
  void set_step_count(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    require_open(env);
    const auto steps = static_cast<int64_t>(count_of(info[0], "optimizerStepCount"));
    const std::lock_guard lock(engine_->busy);
    throw_if_failed(env, learned(env).set_step_count(steps));
    adapter_ == nullptr ? engine_->note() : adapter_->note();
  }

  // () -> {bytes, peakBytes} as of the last job
  Napi::Value memory(const Napi::CallbackInfo& info) {
    Napi::Object result = Napi::Object::New(info.Env());
    result.Set("bytes", static_cast<double>(noted().memory_bytes.load()));
    result.Set("peakBytes", static_cast<double>(noted().memory_peak_bytes.load()));
    return result;
  }

  void close(const Napi::CallbackInfo& info) {
    if (adapter_ != nullptr) throw invalid(info.Env(), "an adapter is released, not closed");
    engine_->queue->close();
  }

  std::shared_ptr<ModelEngine> engine_;
  std::shared_ptr<Adapter> adapter_;  // null: the model itself
};

}  // namespace

Napi::Value new_model_object(Napi::Env env, ModelHandle handle) {
  return addon_data(env).model_class.New({Napi::External<ModelHandle>::New(env, &handle)});
}

void export_model(Napi::Env env, Napi::Object exports) {
  const Napi::Function model_class = Model::define(env);
  addon_data(env).model_class = Napi::Persistent(model_class);
  exports.Set("Model", model_class);
}

}  // namespace covenant_node
