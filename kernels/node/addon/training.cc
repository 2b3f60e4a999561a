#include "training.h"

#include <memory>
#include <string>
#include <vector>

#include "convert.h"

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

// What read and write take.
struct Range {
  int32_t which;
  uint64_t offset;
  View<float> values;
};

Range range_of(const Napi::CallbackInfo& info, Job& job) {
  const Range range{integer_value(info[0], "buffer", COV_PARAMETERS, COV_SECOND_MOMENT),
                    count_of(info[1], "offset"), float32(info[2], "values")};
  job.pin(range.values.value);
  return range;
}

}  // namespace

void prepare_read(const Napi::CallbackInfo& info, const ModelHandle& of, Job& job) {
  const auto [which, offset, values] = range_of(info, job);
  job.run = [which = which, offset = offset, to = values.data, count = values.length, of] {
    return of.learned().read(which, offset, count, to);
  };
}

void prepare_write(const Napi::CallbackInfo& info, const ModelHandle& of, Job& job) {
  const auto [which, offset, values] = range_of(info, job);
  job.run = [which = which, offset = offset, from = values.data, count = values.length, of] {
    return of.learned().write(which, offset, count, from);
  };
}

void prepare_forward(const Napi::CallbackInfo& info, const ModelHandle& of, Job& job) {
  const Napi::Env env = info.Env();
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
    job.pin(value);
  }
  const cov_forward_output output{log_probs.data, entropy.data,
                                  options.top_count > 0 ? top_tokens.data : nullptr,
                                  options.top_count > 0 ? top_log_probs.data : nullptr};
  job.run = [=, engine = of.engine.get()] {
    return engine->calls->forward(own->batch, options, output);
  };
}

void prepare_backward(const Napi::CallbackInfo& info, const ModelHandle& of, Job& job) {
  const View<float> coefficients = float32(info[0], "coefficients");
  job.pin(coefficients.value);
  job.run = [data = coefficients.data, count = coefficients.length, engine = of.engine.get()] {
    return engine->calls->backward(data, count);
  };
}

void prepare_optimizer_step(const Napi::CallbackInfo& info, const ModelHandle& of, Job& job) {
  const cov_adamw_options options = adamw_of(info[0]);
  const auto norm = std::make_shared<float>(0.0f);
  job.run = [options, norm, of] { return of.learned().optimizer_step(options, norm.get()); };
  job.result = [norm](Napi::Env env) -> Napi::Value {
    Napi::Object result = Napi::Object::New(env);
    result.Set("gradientNorm", *norm);
    return result;
  };
}

void prepare_train_step(const Napi::CallbackInfo& info, const ModelHandle& of, Job& job) {
  struct Outcome {
    double loss = 0;
    float norm = 0;
  };
  const auto own = batch_of(info[0]);
  const cov_adamw_options options = adamw_of(info[1]);
  take_cancel(info[2], job);
  const auto outcome = std::make_shared<Outcome>();
  job.run = [=, engine = of.engine.get()] {
    return engine->calls->train_step(own->batch, options, &outcome->loss, &outcome->norm);
  };
  job.result = [outcome](Napi::Env env) -> Napi::Value {
    Napi::Object result = Napi::Object::New(env);
    result.Set("loss", outcome->loss);
    result.Set("gradientNorm", outcome->norm);
    return result;
  };
}

}  // namespace covenant_node
