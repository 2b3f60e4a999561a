// Policy deltas and activation payloads: jobs of the stateless engine thread.
#include <memory>
#include <string>
#include <utility>

#include "bindings.h"
#include "convert.h"
#include "covenant/activation.h"
#include "covenant/delta.h"
#include "stateless.h"

namespace covenant_node {
namespace {

// bf16 weights as the bytes of a checkpoint: little-endian, two a weight.
struct Weights {
  const uint16_t* data;
  uint64_t count;
  Napi::Value value;
};

Weights weights_of(const Napi::Value& value, const char* name) {
  const View<uint8_t> bytes = uint8(value, name);
  if (bytes.length % 2 != 0 || reinterpret_cast<uintptr_t>(bytes.data) % 2 != 0)
    throw invalid(value.Env(), std::string(name) + " must be whole bf16 values at an even address");
  return {reinterpret_cast<const uint16_t*>(bytes.data), bytes.length / 2, bytes.value};
}

// (base, next, {threads?}) -> Promise<Uint8Array>
Napi::Value encode_delta(const Napi::CallbackInfo& info) {
  const Weights base = weights_of(info[0], "base");
  const Weights next = weights_of(info[1], "next");
  if (base.count != next.count)
    throw invalid(info.Env(), "base and next must have the same length");
  const int32_t threads = threads_of(object_of(info[2], "options"));
  const auto delta = std::make_shared<MadeBytes>();
  auto job = stateless_job(info.Env());
  job->pin(base.value);
  job->pin(next.value);
  job->run = [=] {
    return cov_delta_encode(base.data, next.data, base.count, threads, delta->out());
  };
  job->result = [delta](Napi::Env env) { return delta->take(env); };
  return submit_stateless(info.Env(), std::move(job));
}

// (base, delta, next, {threads?}) -> Promise<void>
Napi::Value apply_delta(const Napi::CallbackInfo& info) {
  const Weights base = weights_of(info[0], "base");
  const View<uint8_t> delta = uint8(info[1], "delta");
  const Weights next = weights_of(info[2], "next");
  if (base.count != next.count)
    throw invalid(info.Env(), "base and next must have the same length");
  const int32_t threads = threads_of(object_of(info[3], "options"));
  auto* const out = const_cast<uint16_t*>(next.data);
  auto job = stateless_job(info.Env());
  for (const Napi::Value& value : {base.value, delta.value, next.value}) job->pin(value);
  job->run = [=] {
    return cov_delta_apply(base.data, base.count, delta.data, delta.length, threads, out);
  };
  return submit_stateless(info.Env(), std::move(job));
}

struct ActivationShape {
  int32_t kind;
  int32_t rows;
  int32_t width;
  int32_t threads;
};

ActivationShape activation_of(const Napi::Value& value) {
  const Napi::Object options = object_of(value, "options");
  return {integer(options, "kind", 0, 2), integer(options, "rows", 0, INT32_MAX),
          integer(options, "width", 1, COV_ACTIVATION_WIDTH_MAX),
          threads_of(options)};
}

// ({kind, rows, width}) -> bytes of a payload
Napi::Value activation_size(const Napi::CallbackInfo& info) {
  const ActivationShape shape = activation_of(info[0]);
  uint64_t bytes = 0;
  throw_if_failed(info.Env(), cov_activation_size(shape.kind, shape.rows, shape.width, &bytes));
  return Napi::Number::New(info.Env(), static_cast<double>(bytes));
}

// (values, {kind, rows, width, threads?}, payload) -> Promise<void>, in the direction asked for.
Napi::Value code_activations(const Napi::CallbackInfo& info, bool encode) {
  const View<float> values = float32(info[0], "values");
  const ActivationShape shape = activation_of(info[1]);
  const View<uint8_t> payload = uint8(info[2], "payload");
  if (values.length != static_cast<uint64_t>(shape.rows) * static_cast<uint64_t>(shape.width))
    throw invalid(info.Env(), "values must have rows * width elements");
  auto job = stateless_job(info.Env());
  job->pin(values.value);
  job->pin(payload.value);
  job->run = [=] {
    return encode ? cov_activation_encode(shape.kind, values.data, shape.rows, shape.width,
                                          shape.threads, payload.data, payload.length)
                  : cov_activation_decode(shape.kind, payload.data, payload.length, shape.rows,
                                          shape.width, shape.threads, values.data);
  };
  return submit_stateless(info.Env(), std::move(job));
}

Napi::Value encode_activations(const Napi::CallbackInfo& info) {
  return code_activations(info, true);
}
Napi::Value decode_activations(const Napi::CallbackInfo& info) {
  return code_activations(info, false);
}

}  // namespace

void export_codec(Napi::Env env, Napi::Object exports) {
  exports.Set("encodeDelta", Napi::Function::New(env, encode_delta, "encodeDelta"));
  exports.Set("applyDelta", Napi::Function::New(env, apply_delta, "applyDelta"));
  exports.Set("activationSize", Napi::Function::New(env, activation_size, "activationSize"));
  exports.Set("encodeActivations",
              Napi::Function::New(env, encode_activations, "encodeActivations"));
  exports.Set("decodeActivations",
              Napi::Function::New(env, decode_activations, "decodeActivations"));
}

}  // namespace covenant_node
