// Jobs without a model: compressing, merging, applying, hashing. They run one after the other on
// one engine thread.
#include "covenant/sparse.h"

#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bindings.h"
#include "convert.h"
#include "covenant/hash.h"
#include "stateless.h"

namespace covenant_node {
namespace {

// ({base, current, errorFeedback, tensors, errorDecay, keepPerChunk, mode, threads?, body:
// Uint8Array}) -> Promise<void>
Napi::Value compress(const Napi::CallbackInfo& info) {
  const Napi::Object options = object_of(info[0], "options");
  const View<float> base = float32(options.Get("base"), "base");
  const View<float> current = float32(options.Get("current"), "current");
  const View<float> feedback = float32(options.Get("errorFeedback"), "errorFeedback");
  const View<uint8_t> body = uint8(options.Get("body"), "body");
  if (base.length != current.length || base.length != feedback.length) {
    throw invalid(info.Env(), "base, current and errorFeedback must have the same length");
  }
  const Tensors tensors = shared_tensors(options.Get("tensors"));
  const cov_sparse_format format = format_of(options);
  const cov_sparse_source source{base.data, current.data, feedback.data, base.length,
                                 static_cast<float>(number(options, "errorDecay"))};
  const int32_t threads = threads_of(options);
  auto job = stateless_job(info.Env());
  for (const Napi::Value& value : {base.value, current.value, feedback.value, body.value})
    job->pin(value);
  job->run = [=] {
    return cov_sparse_compress(&source, tensors->data(), count_of(tensors), format, threads,
                               body.data, body.length);
  };
  return submit_stateless(info.Env(), std::move(job));
}

struct DecodedArrays {
  uint32_t* indices = nullptr;
  float* values = nullptr;
  uint64_t kept = 0;
  ~DecodedArrays() {
    std::free(indices);
    std::free(values);
  }
};

// (body, tensors, {keepPerChunk, mode}) -> Promise<{indices: Uint32Array, values: Float32Array}>
Napi::Value decode(const Napi::CallbackInfo& info) {
  const View<uint8_t> body = uint8(info[0], "body");
  const Tensors tensors = shared_tensors(info[1]);
  const cov_sparse_format format = format_of(object_of(info[2], "format"));
  const auto arrays = std::make_shared<DecodedArrays>();
  auto job = stateless_job(info.Env());
  job->pin(body.value);
  job->run = [=]() -> cov_status {
    uint64_t kept = 0;
    cov_status status =
        cov_sparse_check(body.data, body.length, tensors->data(), count_of(tensors), format, &kept);
    if (status.code != COV_OK) return status;
    arrays->indices = static_cast<uint32_t*>(std::malloc(kept * sizeof(uint32_t) + 1));
    arrays->values = static_cast<float*>(std::malloc(kept * sizeof(float) + 1));
    if (!arrays->indices || !arrays->values)
      return cov_error(COV_OUT_OF_MEMORY, "no memory for the decoded values");
    return cov_sparse_decode(body.data, body.length, tensors->data(), count_of(tensors), format,
                             arrays->indices, arrays->values, kept, &arrays->kept);
  };
  job->result = [arrays](Napi::Env env) -> Napi::Value {
    Napi::Object result = Napi::Object::New(env);
    const uint64_t bytes = arrays->kept * 4;
    void* const indices = std::exchange(arrays->indices, nullptr);
    const Napi::ArrayBuffer index_buffer =
        adopt(env, indices, bytes, [indices] { std::free(indices); }, true);
    result.Set("indices", Napi::Uint32Array::New(env, arrays->kept, index_buffer, 0));
    void* const values = std::exchange(arrays->values, nullptr);
    const Napi::ArrayBuffer value_buffer =
        adopt(env, values, bytes, [values] { std::free(values); }, true);
    result.Set("values", Napi::Float32Array::New(env, arrays->kept, value_buffer, 0));
    return result;
  };
  return submit_stateless(info.Env(), std::move(job));
}

struct MergeJob {
  std::vector<const uint8_t*> bodies;
  std::vector<uint64_t> body_bytes;
  cov_merge_input input{};
  MadeBytes merged;
};

int32_t rule_of(const Napi::Object& options) {
  const Napi::Value value = options.Get("rule");
  const std::string rule = value.IsString() ? value.As<Napi::String>().Utf8Value() : "";
  if (rule == "contributors") return COV_MERGE_CONTRIBUTORS;
  if (rule == "all") return COV_MERGE_ALL;
  throw invalid(options.Env(), "rule must be \"contributors\" or \"all\"");
}

// ({updates, weights, tensors, rule, clipToMedianNorm, keepPerChunk, mode, threads?}) ->
// Promise<Uint8Array>
Napi::Value aggregate(const Napi::CallbackInfo& info) {
  const Napi::Object options = object_of(info[0], "options");
  const Napi::Array updates = array_of(options.Get("updates"), "updates");
  const View<float> weights = float32(options.Get("weights"), "weights");
  if (weights.length != updates.Length())
    throw invalid(info.Env(), "there must be one weight for each update");
  if (updates.Length() > COV_SPARSE_PEERS_MAX)
    throw invalid(info.Env(), "there are more than 4096 updates");
  const Napi::Value clip = options.Get("clipToMedianNorm");
  if (!clip.IsBoolean()) throw invalid(info.Env(), "clipToMedianNorm must be true or false");
  const Tensors tensors = shared_tensors(options.Get("tensors"));
  const cov_sparse_format format = format_of(options);
  const int32_t threads = threads_of(options);
  const auto merge = std::make_shared<MergeJob>();
  auto job = stateless_job(info.Env());
  for (uint32_t r = 0; r < updates.Length(); ++r) {
    const View<uint8_t> update = uint8(updates.Get(r), "an update");
    merge->bodies.push_back(update.data);
    merge->body_bytes.push_back(update.length);
    job->pin(update.value);
  }
  job->pin(weights.value);
  merge->input = {merge->bodies.data(), merge->body_bytes.data(),
                  weights.data,         static_cast<int32_t>(updates.Length()),
                  rule_of(options),     clip.As<Napi::Boolean>().Value() ? 1 : 0};
  job->run = [=] {
    return cov_sparse_merge(&merge->input, tensors->data(), count_of(tensors), format, threads,
                            merge->merged.out());
  };
  job->result = [merge](Napi::Env env) { return merge->merged.take(env); };
  return submit_stateless(info.Env(), std::move(job));
}

struct Skipped {
  std::vector<int32_t> tensors;
  int32_t count = 0;
};

// (parameters, merged, tensors, outerLearningRate) -> Promise<{nonFiniteTensors: number[]}>
Napi::Value apply_merged(const Napi::CallbackInfo& info) {
  const View<float> parameters = float32(info[0], "parameters");
  const View<uint8_t> merged = uint8(info[1], "merged");
  const Tensors tensors = shared_tensors(info[2]);
  if (!info[3].IsNumber()) throw invalid(info.Env(), "outerLearningRate must be a number");
  const float rate = info[3].As<Napi::Number>().FloatValue();
  const auto skipped = std::make_shared<Skipped>();
  auto job = stateless_job(info.Env());
  job->pin(parameters.value);
  job->pin(merged.value);
  job->run = [=] {
    skipped->tensors.resize(tensors->size());
    return cov_merged_apply(parameters.data, parameters.length, merged.data, merged.length,
                            tensors->data(), count_of(tensors), rate, skipped->tensors.data(),
                            &skipped->count);
  };
  job->result = [skipped](Napi::Env env) -> Napi::Value {
    Napi::Array list = Napi::Array::New(env, static_cast<size_t>(skipped->count));
    for (uint32_t i = 0; i < static_cast<uint32_t>(skipped->count); ++i)
      list.Set(i, skipped->tensors[i]);
    Napi::Object result = Napi::Object::New(env);
    result.Set("nonFiniteTensors", list);
    return result;
  };
  return submit_stateless(info.Env(), std::move(job));
}

// (parameters, body, tensors, scale, {keepPerChunk, mode}) -> Promise<void>
Napi::Value apply_update(const Napi::CallbackInfo& info) {
  const View<float> parameters = float32(info[0], "parameters");
  const View<uint8_t> body = uint8(info[1], "body");
  const Tensors tensors = shared_tensors(info[2]);
  if (!info[3].IsNumber()) throw invalid(info.Env(), "scale must be a number");
  const float scale = info[3].As<Napi::Number>().FloatValue();
  const cov_sparse_format format = format_of(object_of(info[4], "format"));
  auto job = stateless_job(info.Env());
  job->pin(parameters.value);
  job->pin(body.value);
  job->run = [=] {
    return cov_sparse_apply(parameters.data, parameters.length, body.data, body.length,
                            tensors->data(), count_of(tensors), format, scale);
  };
  return submit_stateless(info.Env(), std::move(job));
}

// (parameters, tensors, root: Uint8Array(32)) -> Promise<void>
Napi::Value state_root(const Napi::CallbackInfo& info) {
  const View<float> parameters = float32(info[0], "parameters");
  const Tensors tensors = shared_tensors(info[1]);
  const View<uint8_t> root = uint8(info[2], "root");
  if (root.length != COV_HASH_BYTES) throw invalid(info.Env(), "root must have 32 bytes");
  auto job = stateless_job(info.Env());
  job->pin(parameters.value);
  job->pin(root.value);
  job->run = [=] {
    return cov_state_root(parameters.data, parameters.length, tensors->data(), count_of(tensors), 0,
                          root.data);
  };
  return submit_stateless(info.Env(), std::move(job));
}

}  // namespace

void export_sparse(Napi::Env env, Napi::Object exports) {
  exports.Set("compress", Napi::Function::New(env, compress, "compress"));
  exports.Set("decode", Napi::Function::New(env, decode, "decode"));
  exports.Set("aggregate", Napi::Function::New(env, aggregate, "aggregate"));
  exports.Set("applyMerged", Napi::Function::New(env, apply_merged, "applyMerged"));
  exports.Set("applyUpdate", Napi::Function::New(env, apply_update, "applyUpdate"));
  exports.Set("stateRoot", Napi::Function::New(env, state_root, "stateRoot"));
}

}  // namespace covenant_node
