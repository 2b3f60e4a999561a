// The class Model: each instance has an engine thread of its own. Outputs are typed arrays that the
// caller allocated, so nothing is copied on the way.
#include <atomic>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

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

cov_batch batch_of(const Napi::Value& value, Job& job) {
  const Napi::Object object = object_of(value, "batch");
  const View<int32_t> tokens = int32(object.Get("tokens"), "tokens");
  const View<int32_t> targets = int32(object.Get("targets"), "targets");
  cov_batch batch{tokens.data, targets.data, integer(object, "sequences", 1, INT32_MAX),
                  integer(object, "sequenceLength", 1, INT32_MAX)};
  const uint64_t positions =
      static_cast<uint64_t>(batch.sequences) * static_cast<uint64_t>(batch.sequence_length);
  require_length(value.Env(), tokens.length, positions, "tokens");
  require_length(value.Env(), targets.length, positions, "targets");
  job.pin(tokens.value);
  job.pin(targets.value);
  return batch;
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
         InstanceMethod<&Model::step_count>("stepCount"),
         InstanceMethod<&Model::set_step_count>("setStepCount"),
         InstanceMethod<&Model::memory>("memory"), InstanceMethod<&Model::close>("close")});
  }

  // Made by createModel only, which passes a shared engine.
  explicit Model(const Napi::CallbackInfo& info) : Napi::ObjectWrap<Model>(info) {
    if (!info[0].IsExternal()) throw invalid(info.Env(), "a model is made by Model.create");
    engine_ = *info[0].As<Napi::External<std::shared_ptr<ModelEngine>>>().Data();
  }

 private:
  std::unique_ptr<Job> new_job(const Napi::CallbackInfo& info) {
    auto job = std::make_unique<Job>(info.Env(), addon_data(info.Env()).mailbox);
    job->pin(info.This());
    return job;
  }

  Napi::Value submit(std::unique_ptr<Job> job) { return engine_->submit(std::move(job)); }

  // (which: 0..3) -> Float32Array over the live buffer
  Napi::Value view(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    if (engine_->queue->closed())
      throw error_with_code(env, "COV_KERNELS_CLOSED", "the model is closed");
    const int32_t which = info[0].IsNumber() ? info[0].As<Napi::Number>().Int32Value() : -1;
    if (which < COV_PARAMETERS || which > COV_SECOND_MOMENT) throw invalid(env, "no such buffer");
    float* data = nullptr;
    uint64_t length = 0;
    // Buffers other than the parameters are allocated on first use, which must not meet a running
    // job.
    const std::lock_guard<std::mutex> lock(engine_->busy);
    cov_model* const model = engine_->model;
    throw_if_failed(env, cov_model_buffer(model, static_cast<cov_buffer>(which), &data, &length));
    cov_model_retain(model);
    const Napi::ArrayBuffer buffer =
        adopt(env, data, length * sizeof(float), [model] { cov_model_release(model); }, false);
    return Napi::Float32Array::New(env, length, buffer, 0);
  }

  // (batch, {keepActivations, topCount, temperature}, {logProbs, entropy, topTokens?,
  // topLogProbs?}) -> Promise<void>
  Napi::Value forward(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    auto job = new_job(info);
    const cov_batch batch = batch_of(info[0], *job);
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
      return cov_model_forward(engine->model, &batch, &options, &output);
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
    job->run = [=, engine = engine_.get()] {
      return cov_model_optimizer_step(engine->model, &options, norm.get());
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
    const cov_batch batch = batch_of(info[0], *job);
    const cov_adamw_options options = adamw_of(info[1]);
    const auto outcome = std::make_shared<Outcome>();
    job->run = [=, engine = engine_.get()] {
      return cov_model_train_step(engine->model, &batch, &options, &outcome->loss, &outcome->norm);
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
    prepare_generator(info, engine_, *job);
    return submit(std::move(job));
  }

  // () -> number
  Napi::Value step_count(const Napi::CallbackInfo& info) {
    return Napi::Number::New(info.Env(), static_cast<double>(engine_->steps.load()));
  }

  // (count) -> void
  void set_step_count(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    if (engine_->queue->closed())
      throw error_with_code(env, "COV_KERNELS_CLOSED", "the model is closed");
    const double count = info[0].IsNumber() ? info[0].As<Napi::Number>().DoubleValue() : -1;
    if (!(count >= 0 && count <= 9007199254740991.0))
      throw invalid(env, "optimizerStepCount must be a count");
    const std::lock_guard<std::mutex> lock(engine_->busy);
    throw_if_failed(env, cov_model_set_step_count(engine_->model, static_cast<int64_t>(count)));
    engine_->note();
  }

  // () -> {bytes, peakBytes} as of the last job
  Napi::Value memory(const Napi::CallbackInfo& info) {
    Napi::Object result = Napi::Object::New(info.Env());
    result.Set("bytes", static_cast<double>(engine_->memory_bytes.load()));
    result.Set("peakBytes", static_cast<double>(engine_->memory_peak_bytes.load()));
    return result;
  }

  void close(const Napi::CallbackInfo&) { engine_->queue->close(); }

  std::shared_ptr<ModelEngine> engine_;
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
  job->result = [engine](Napi::Env result_env) -> Napi::Value {
    auto held = engine;
    return addon_data(result_env)
        .model_class.New({Napi::External<std::shared_ptr<ModelEngine>>::New(result_env, &held)});
  };
  return engine->submit(std::move(job));
}

}  // namespace

void export_model(Napi::Env env, Napi::Object exports) {
  const Napi::Function model_class = Model::define(env);
  addon_data(env).model_class = Napi::Persistent(model_class);
  exports.Set("Model", model_class);
  exports.Set("createModel", Napi::Function::New(env, create_model, "createModel"));
}

}  // namespace covenant_node
