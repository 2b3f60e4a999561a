// The class Model: a model with an engine thread of its own, or adapters of one. Outputs are typed
// arrays that the caller allocated, so they are not copied on the way.
#include <atomic>
#include <cmath>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "adapter.h"
#include "bindings.h"
#include "convert.h"
#include "generation.h"
#include "generator.h"
#include "jobs.h"
#include "model_engine.h"

namespace covenant_node {
namespace {

void require_length(Napi::Env env, uint64_t actual, uint64_t wanted, const char* name) {
  if (actual != wanted) {
    throw invalid(env, std::string(name) + " has " + std::to_string(actual) +
                           " elements instead of " + std::to_string(wanted));
  }
}

// A batch and its numbers: copied, because tokens that change after they were checked would be read
// out of bounds.
struct OwnBatch {
  std::vector<int32_t> tokens, targets;
  cov_batch batch;
};

std::shared_ptr<const OwnBatch> batch_of(const Napi::Value& value) {
  const Napi::Object object = object_of(value, "batch");
  const View<int32_t> tokens = int32(object.Get("tokens"), "tokens");
  const View<int32_t> targets = int32(object.Get("targets"), "targets");
  const auto own = std::make_shared<OwnBatch>();
  cov_batch& batch = own->batch;
  batch.sequences = integer(object, "sequences", 1, INT32_MAX);
  batch.sequence_length = integer(object, "sequenceLength", 1, INT32_MAX);
  const uint64_t positions =
      static_cast<uint64_t>(batch.sequences) * static_cast<uint64_t>(batch.sequence_length);
  require_length(value.Env(), tokens.length, positions, "tokens");
  require_length(value.Env(), targets.length, positions, "targets");
  own->tokens.assign(tokens.data, tokens.data + positions);
  own->targets.assign(targets.data, targets.data + positions);
  batch.tokens = own->tokens.data();
  batch.targets = own->targets.data();
  return own;
}

// {cancel?: Int32Array(1)}: a job that waits when it is set does not run.
void take_cancel(const Napi::Value& value, Job& job) {
  if (value.IsUndefined()) return;
  const View<int32_t> flag = int32(object_of(value, "options").Get("cancel"), "cancel");
  if (flag.length != 1) throw invalid(value.Env(), "cancel must have one element");
  job.pin(flag.value);
  job.cancel = flag.data;
}

class Model : public Napi::ObjectWrap<Model> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(
        env, "Model",
        {InstanceMethod<&Model::view>("view"), InstanceMethod<&Model::forward>("forward"),
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

  // Made by createModel only, which passes a shared engine.
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

  void require_open(Napi::Env env) const {
    if (engine_->queue->closed())
      throw error_with_code(env, "COV_KERNELS_CLOSED", "the model is closed");
  }

  // With `busy` held.
  cov_lora* lora(Napi::Env env) const {
    if (adapter_->owner == nullptr)
      throw error_with_code(env, "COV_KERNELS_CLOSED", "the adapter is released");
    return adapter_->owner->lora;
  }

  void require_adapter(Napi::Env env) const {
    if (adapter_ == nullptr) throw invalid(env, "this is a model and not an adapter");
  }

  // (which: 0..3) -> Float32Array over the live buffer
  Napi::Value view(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    require_open(env);
    const int32_t which = info[0].IsNumber() ? info[0].As<Napi::Number>().Int32Value() : -1;
    if (which < COV_PARAMETERS || which > COV_SECOND_MOMENT) throw invalid(env, "no such buffer");
    float* data = nullptr;
    uint64_t length = 0;
    // Buffers other than the parameters are allocated on first use, which must not meet a running
    // job.
    const std::lock_guard lock(engine_->busy);
    std::function<void()> release;
    if (adapter_ == nullptr) {
      cov_model* const model = engine_->model;
      throw_if_failed(env, cov_model_buffer(model, which, &data, &length));
      cov_model_retain(model);
      release = [model] { cov_model_release(model); };
    } else {
      throw_if_failed(env, cov_lora_buffer(lora(env), which, &data, &length));
      adapter_->note();
      release = [owner = adapter_->owner]() mutable { owner.reset(); };
    }
    engine_->note();
    const Napi::ArrayBuffer buffer =
        adopt(env, data, length * sizeof(float), std::move(release), false);
    return Napi::Float32Array::New(env, length, buffer, 0);
  }

  // (batch, {keepActivations, topCount, temperature}, {logProbs, entropy, topTokens?,
  // topLogProbs?}) -> Promise<void>
  Napi::Value forward(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    auto job = new_job(info);
    const auto own = batch_of(info[0]);
    const cov_batch& batch = own->batch;
    const Napi::Object object = object_of(info[1], "options");
    const cov_forward_options options{object.Get("keepActivations").ToBoolean() ? 1 : 0,
                                      integer(object, "topCount", 0, 256),
                                      static_cast<float>(number(object, "temperature"))};
    const uint64_t positions =
        static_cast<uint64_t>(batch.sequences) * static_cast<uint64_t>(batch.sequence_length);
    const uint64_t tops = positions * static_cast<uint64_t>(options.top_count);
    const Napi::Object arrays = object_of(info[2], "output");
    const View<float> log_probs = float32(arrays.Get("logProbs"), "logProbs");
    const View<float> entropy = float32(arrays.Get("entropy"), "entropy");
    const View<int32_t> top_tokens = optional_int32(arrays.Get("topTokens"), "topTokens");
    const View<float> top_log_probs = optional_float32(arrays.Get("topLogProbs"), "topLogProbs");
    require_length(env, log_probs.length, positions, "logProbs");
    require_length(env, entropy.length, positions, "entropy");
    if (options.top_count > 0) {
      require_length(env, top_tokens.length, tops, "topTokens");
      require_length(env, top_log_probs.length, tops, "topLogProbs");
    }
    for (const Napi::Value& value :
         {log_probs.value, entropy.value, top_tokens.value, top_log_probs.value}) {
      job->pin(value);
    }
    const cov_forward_output output{log_probs.data, entropy.data,
                                    options.top_count > 0 ? top_tokens.data : nullptr,
                                    options.top_count > 0 ? top_log_probs.data : nullptr};
    job->run = [=, engine = engine_.get()] {
      return cov_model_forward(engine->model, &own->batch, &options, &output);
    };
    return submit(std::move(job));
  }

  // (coefficients) -> Promise<void>
  Napi::Value backward(const Napi::CallbackInfo& info) {
    auto job = new_job(info);
    const View<float> coefficients = float32(info[0], "coefficients");
    job->pin(coefficients.value);
    job->run = [=, engine = engine_.get()] {
      return cov_model_backward(engine->model, coefficients.data, coefficients.length);
    };
    return submit(std::move(job));
  }

  // (optimizer) -> Promise<{gradientNorm}>
  Napi::Value optimizer_step(const Napi::CallbackInfo& info) {
    auto job = new_job(info);
    const cov_adamw_options options = adamw_of(info[0]);
    const auto norm = std::make_shared<float>(0.0f);
    job->run = [=, engine = engine_.get(), adapter = adapter_.get()] {
      return adapter == nullptr
                 ? cov_model_optimizer_step(engine->model, &options, norm.get())
                 : cov_lora_optimizer_step(adapter->owner->lora, &options, norm.get());
    };
    job->result = [norm](Napi::Env env) -> Napi::Value {
      Napi::Object result = Napi::Object::New(env);
      result.Set("gradientNorm", *norm);
      return result;
    };
    return submit(std::move(job));
  }

  // (batch, optimizer) -> Promise<{loss, gradientNorm}>
  Napi::Value train_step(const Napi::CallbackInfo& info) {
    struct Outcome {
      double loss = 0;
      float norm = 0;
    };
    auto job = new_job(info);
    const auto own = batch_of(info[0]);
    const cov_adamw_options options = adamw_of(info[1]);
    take_cancel(info[2], *job);
    const auto outcome = std::make_shared<Outcome>();
    job->run = [=, engine = engine_.get()] {
      return cov_model_train_step(engine->model, &own->batch, &options, &outcome->loss,
                                  &outcome->norm);
    };
    job->result = [outcome](Napi::Env env) -> Napi::Value {
      Napi::Object result = Napi::Object::New(env);
      result.Set("loss", outcome->loss);
      result.Set("gradientNorm", outcome->norm);
      return result;
    };
    return submit(std::move(job));
  }

  // See generation.h
  Napi::Value generate(const Napi::CallbackInfo& info) {
    auto job = new_job(info);
    prepare_generate(info, *engine_, *job);
    return submit(std::move(job));
  }

  Napi::Value replay(const Napi::CallbackInfo& info) {
    auto job = new_job(info);
    prepare_replay(info, *engine_, *job);
    return submit(std::move(job));
  }

  // See generator.h
  Napi::Value create_generator(const Napi::CallbackInfo& info) {
    auto job = new_job(info);
    prepare_generator(info, {engine_, adapter_}, *job);
    return submit(std::move(job));
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
    const std::atomic<int64_t>& steps = adapter_ == nullptr ? engine_->steps : adapter_->steps;
    return Napi::Number::New(info.Env(), static_cast<double>(steps.load()));
  }

  // (count) -> void
  void set_step_count(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    require_open(env);
    const double count = info[0].IsNumber() ? info[0].As<Napi::Number>().DoubleValue() : -1;
    if (!(count >= 0 && count <= 9007199254740991.0) || count != std::floor(count))
      throw invalid(env, "optimizerStepCount must be a count");
    const std::lock_guard lock(engine_->busy);
    const auto steps = static_cast<int64_t>(count);
    throw_if_failed(env, adapter_ == nullptr ? cov_model_set_step_count(engine_->model, steps)
                                             : cov_lora_set_step_count(lora(env), steps));
    adapter_ == nullptr ? engine_->note() : adapter_->note();
  }

  // () -> {bytes, peakBytes} as of the last job; of adapters {bytes}
  Napi::Value memory(const Napi::CallbackInfo& info) {
    Napi::Object result = Napi::Object::New(info.Env());
    if (adapter_ != nullptr) {
      result.Set("bytes", static_cast<double>(adapter_->memory_bytes.load()));
      return result;
    }
    result.Set("bytes", static_cast<double>(engine_->memory_bytes.load()));
    result.Set("peakBytes", static_cast<double>(engine_->memory_peak_bytes.load()));
    return result;
  }

  void close(const Napi::CallbackInfo& info) {
    if (adapter_ != nullptr) throw invalid(info.Env(), "an adapter is released, not closed");
    engine_->queue->close();
  }

  std::shared_ptr<ModelEngine> engine_;
  std::shared_ptr<Adapter> adapter_;  // null: the model itself
};

// undefined, "f32" or "bf16"
int32_t compute_of(const Napi::Value& value) {
  if (value.IsUndefined()) return COV_COMPUTE_F32;
  const std::string name = value.IsString() ? value.As<Napi::String>().Utf8Value() : "";
  if (name == "f32") return COV_COMPUTE_F32;
  if (name == "bf16") return COV_COMPUTE_BF16;
  throw invalid(value.Env(), "compute must be \"f32\" or \"bf16\"");
}

// (shape, {parameters?, threads?, memoryLimitBytes?, compute?}) -> Promise<Model>
Napi::Value create_model(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const cov_model_shape shape = shape_of(info[0]);
  throw_if_failed(env, cov_shape_check(&shape));
  const Napi::Object object = object_of(info[1], "options");
  const View<float> parameters = optional_float32(object.Get("parameters"), "parameters");
  cov_model_options options{};
  options.parameters = parameters.data;
  options.parameter_count = parameters.length;
  options.threads = integer_or(object, "threads", 0, 256, 0);
  options.compute = compute_of(object.Get("compute"));
  if (!object.Get("memoryLimitBytes").IsUndefined()) {
    const double limit = number(object, "memoryLimitBytes");
    if (!(limit >= 0 && limit <= 9007199254740991.0))
      throw invalid(env, "memoryLimitBytes must be a count");
    options.memory_limit_bytes = static_cast<uint64_t>(limit);
  }
  const auto engine = std::make_shared<ModelEngine>(addon_data(env).registry);
  auto job = std::make_unique<Job>(env, addon_data(env).mailbox);
  job->pin(parameters.value);
  // The engine outlives the job, because the job's result holds it; the thread itself must not.
  job->run = [=, raw = engine.get()] { return cov_model_create(&shape, &options, &raw->model); };
  job->result = [engine](Napi::Env result_env) {
    return new_model_object(result_env, {engine, nullptr});
  };
  return engine->submit(std::move(job));
}

}  // namespace

Napi::Value new_model_object(Napi::Env env, ModelHandle handle) {
  return addon_data(env).model_class.New({Napi::External<ModelHandle>::New(env, &handle)});
}

void export_model(Napi::Env env, Napi::Object exports) {
  const Napi::Function model_class = Model::define(env);
  addon_data(env).model_class = Napi::Persistent(model_class);
  exports.Set("Model", model_class);
  exports.Set("createModel", Napi::Function::New(env, create_model, "createModel"));
}

}  // namespace covenant_node
