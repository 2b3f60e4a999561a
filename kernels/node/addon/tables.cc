// Short calls that answer at once.
#include <cmath>
#include <memory>

#include "bindings.h"
#include "convert.h"
#include "covenant/hash.h"
#include "covenant/rng.h"
#include "covenant/tensors.h"

namespace covenant_node {
namespace {

// (shape) -> TensorInfo[]
Napi::Value tensor_table(const Napi::CallbackInfo& info) {
  const cov_model_shape shape = shape_of(info[0]);
  throw_if_failed(info.Env(), cov_shape_check(&shape));
  std::vector<cov_tensor_info> tensors(static_cast<size_t>(cov_tensor_count(&shape)));
  throw_if_failed(info.Env(),
                  cov_tensor_table(&shape, tensors.data(), static_cast<int32_t>(tensors.size())));
  return tensors_to_js(info.Env(), tensors);
}

// (tensors) -> Uint8Array(32)
Napi::Value tensor_table_root(const Napi::CallbackInfo& info) {
  const std::vector<cov_tensor_info> tensors = tensors_of(info[0]);
  Napi::Uint8Array root = Napi::Uint8Array::New(info.Env(), COV_HASH_BYTES);
  throw_if_failed(
      info.Env(),
      cov_tensor_table_root(tensors.data(), static_cast<int32_t>(tensors.size()), root.Data()));
  return root;
}

// (shape, seed: bigint) -> Float32Array
Napi::Value initial_parameters(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const cov_model_shape shape = shape_of(info[0]);
  throw_if_failed(env, cov_shape_check(&shape));
  const uint64_t seed = seed_number_of(info[1], "seed");
  Napi::Float32Array parameters = Napi::Float32Array::New(env, cov_parameter_count(&shape));
  throw_if_failed(
      env, cov_initial_parameters(&shape, seed, parameters.Data(), parameters.ElementLength()));
  return parameters;
}

// (tensors, {mode, keepPerChunk}) -> {bodyBytes, keptMax}
Napi::Value sparse_size(const Napi::CallbackInfo& info) {
  const std::vector<cov_tensor_info> tensors = tensors_of(info[0]);
  uint64_t bytes = 0;
  uint64_t kept = 0;
  throw_if_failed(info.Env(),
                  cov_sparse_size(tensors.data(), static_cast<int32_t>(tensors.size()),
                                  format_of(object_of(info[1], "format")), &bytes, &kept));
  Napi::Object result = Napi::Object::New(info.Env());
  result.Set("bodyBytes", static_cast<double>(bytes));
  result.Set("keptMax", static_cast<double>(kept));
  return result;
}

// (data: Uint8Array) -> Uint8Array(32)
Napi::Value sha256(const Napi::CallbackInfo& info) {
  const View<uint8_t> data = uint8(info[0], "data");
  Napi::Uint8Array digest = Napi::Uint8Array::New(info.Env(), COV_HASH_BYTES);
  cov_sha256(data.data, data.length, digest.Data());
  return digest;
}

// (seed: Uint8Array(32), index) -> number
Napi::Value uniform_at(const Napi::CallbackInfo& info) {
  uint8_t seed[32];
  seed_of(info[0], "seed", seed);
  const double index = info[1].IsNumber() ? info[1].As<Napi::Number>().DoubleValue() : -1;
  if (!(index >= 0 && index <= 4294967295.0) || index != std::floor(index))
    throw invalid(info.Env(), "index must be an integer from 0 to 4294967295");
  return Napi::Number::New(info.Env(), cov_uniform_at(seed, static_cast<uint32_t>(index)));
}

// () -> {cpuPath, defaultThreads}
Napi::Value machine(const Napi::CallbackInfo& info) {
  Napi::Object result = Napi::Object::New(info.Env());
  result.Set("cpuPath", cov_cpu_path());
  result.Set("defaultThreads", cov_default_threads());
  return result;
}

}  // namespace

void export_tables(Napi::Env env, Napi::Object exports) {
  exports.Set("tensorTable", Napi::Function::New(env, tensor_table, "tensorTable"));
  exports.Set("tensorTableRoot", Napi::Function::New(env, tensor_table_root, "tensorTableRoot"));
  exports.Set("initialParameters",
              Napi::Function::New(env, initial_parameters, "initialParameters"));
  exports.Set("sparseSize", Napi::Function::New(env, sparse_size, "sparseSize"));
  exports.Set("sha256", Napi::Function::New(env, sha256, "sha256"));
  exports.Set("uniformAt", Napi::Function::New(env, uniform_at, "uniformAt"));
  exports.Set("machine", Napi::Function::New(env, machine, "machine"));
}

}  // namespace covenant_node
