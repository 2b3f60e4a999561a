// createModel and createDeviceModel: options, and the engine that the model's object gets.
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "adapter.h"
#include "bindings.h"
#include "convert.h"
#include "model_engine.h"

namespace covenant_node {
namespace {

// undefined, "f32" or "bf16"
int32_t compute_of(const Napi::Object& options) {
  const Napi::Value value = options.Get("compute");
  if (value.IsUndefined()) return COV_COMPUTE_F32;
  const std::string name = value.IsString() ? value.As<Napi::String>().Utf8Value() : "";
  if (name == "f32") return COV_COMPUTE_F32;
  if (name == "bf16") return COV_COMPUTE_BF16;
  throw invalid(value.Env(), "compute must be \"f32\" or \"bf16\"");
}

cov_model_shape checked_shape(const Napi::Value& value) {
  const cov_model_shape shape = shape_of(value);
  throw_if_failed(value.Env(), cov_shape_check(&shape));
  return shape;
}

// A job that makes the model; the engine outlives it, because its result holds the engine.
std::unique_ptr<Job> creation(const Napi::CallbackInfo& info, const View<float>& parameters) {
  auto job = std::make_unique<Job>(info.Env(), addon_data(info.Env()).mailbox);
  job->pin(parameters.value);
  return job;
}

// (shape, {parameters?, threads?, memoryLimitBytes?, compute?}) -> Promise<Model>
Napi::Value create_model(const Napi::CallbackInfo& info) {
  const cov_model_shape shape = checked_shape(info[0]);
  const Napi::Object object = object_of(info[1], "options");
  const View<float> parameters = optional_float32(object.Get("parameters"), "parameters");
  cov_model_options options{};
  options.parameters = parameters.data;
  options.parameter_count = parameters.length;
  options.threads = integer_or(object, "threads", 0, 256, 0);
  options.compute = compute_of(object);
  options.memory_limit_bytes = count_or(object, "memoryLimitBytes", 0);
  const auto engine = std::make_shared<ModelEngine>(addon_data(info.Env()).registry, shape);
  auto job = creation(info, parameters);
  job->run = [=, raw = engine.get()] { return cpu_calls(shape, options, raw->calls, &raw->model); };
  job->result = [engine](Napi::Env env) { return new_model_object(env, {engine, nullptr}); };
  return engine->submit(std::move(job));
}

DeviceModelOptions device_options(const Napi::Object& object) {
  DeviceModelOptions options;
  const Napi::Array devices = array_of(object.Get("devices"), "devices");
  if (devices.Length() < 1 || devices.Length() > COV_PARALLEL_DEVICES_MAX)
    throw invalid(object.Env(), "devices must name 1 to " +
                                    std::to_string(COV_PARALLEL_DEVICES_MAX) + " devices");
  for (uint32_t i = 0; i < devices.Length(); ++i)
    options.devices.push_back(integer_value(devices.Get(i), "a device", 0, INT32_MAX));
  options.stages = integer(object, "stages", 1, COV_PARALLEL_DEVICES_MAX);
  options.compute = compute_of(object);
  options.vendor_products = object.Get("vendorProducts").ToBoolean();
  options.collectives =
      object.Get("nccl").ToBoolean() ? COV_COLLECTIVES_NCCL : COV_COLLECTIVES_ORDERED;
  options.memory_limit_bytes = count_or(object, "memoryLimitBytes", 0);
  return options;
}

struct DeviceModelWork {
  DeviceModelOptions options;
  std::vector<DevicePlace> places;
  std::string report;
};

Napi::Array places_to_js(Napi::Env env, const std::vector<DevicePlace>& places) {
  Napi::Array list = Napi::Array::New(env, places.size());
  for (uint32_t i = 0; i < places.size(); ++i) {
    Napi::Object place = Napi::Object::New(env);
    place.Set("device", places[i].device);
    place.Set("firstLayer", places[i].first_layer);
    place.Set("layerCount", places[i].layers);
    list.Set(i, place);
  }
  return list;
}

// (shape, {devices, stages, parameters?, memoryLimitBytes?, compute?, vendorProducts?, nccl?})
//   -> Promise<{model: Model, places: {device, firstLayer, layerCount}[], report}>
Napi::Value create_device_model(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const cov_model_shape shape = checked_shape(info[0]);
  const Napi::Object object = object_of(info[1], "options");
  const View<float> parameters = optional_float32(object.Get("parameters"), "parameters");
  const auto engine = std::make_shared<ModelEngine>(addon_data(env).registry, shape);
  if (parameters.data != nullptr && parameters.length != engine->length)
    throw invalid(env, "parameters has " + std::to_string(parameters.length) +
                           " elements instead of " + std::to_string(engine->length));
  const auto work = std::make_shared<DeviceModelWork>();
  work->options = device_options(object);
  auto job = creation(info, parameters);
  job->run = [=, data = parameters.data, raw = engine.get()] {
    cov_status status = device_calls(shape, work->options, raw->calls, work->places, work->report);
    if (status.code == COV_OK && data != nullptr)
      status = raw->calls->write(COV_PARAMETERS, 0, raw->length, data);
    return status;
  };
  job->result = [engine, work](Napi::Env result_env) -> Napi::Value {
    Napi::Object result = Napi::Object::New(result_env);
    result.Set("model", new_model_object(result_env, {engine, nullptr}));
    result.Set("places", places_to_js(result_env, work->places));
    result.Set("report", work->report);
    return result;
  };
  return engine->submit(std::move(job));
}

}  // namespace

void export_create_model(Napi::Env env, Napi::Object exports) {
  exports.Set("createModel", Napi::Function::New(env, create_model, "createModel"));
  exports.Set("createDeviceModel",
              Napi::Function::New(env, create_device_model, "createDeviceModel"));
}

}  // namespace covenant_node
