// What GPUs there are.
#include <string>

#include "bindings.h"
#include "convert.h"
#include "covenant/device.h"

namespace covenant_node {
namespace {

// () -> {report, devices: [{index, name, memoryBytes, freeBytes, computeCapability,
// multiprocessors, driverVersion}]}
Napi::Value devices(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Napi::Array list = Napi::Array::New(env);
  const int32_t count = cov_device_count();
  for (int32_t i = 0; i < count; ++i) {
    cov_device_info device{};
    throw_if_failed(env, cov_device_info_at(i, &device));
    Napi::Object one = Napi::Object::New(env);
    one.Set("index", i);
    one.Set("name", static_cast<const char*>(device.name));
    one.Set("memoryBytes", static_cast<double>(device.memory_bytes));
    one.Set("freeBytes", static_cast<double>(device.free_bytes));
    one.Set("computeCapability", device.compute_capability / 10.0);
    one.Set("multiprocessors", device.multiprocessors);
    const int32_t driver = device.driver_version;
    one.Set("driverVersion",
            std::to_string(driver / 1000) + "." + std::to_string(driver % 1000 / 10));
    list.Set(static_cast<uint32_t>(i), one);
  }
  Napi::Object result = Napi::Object::New(env);
  result.Set("report", cov_device_report());
  result.Set("devices", list);
  return result;
}

}  // namespace

void export_devices(Napi::Env env, Napi::Object exports) {
  exports.Set("devices", Napi::Function::New(env, devices, "devices"));
}

}  // namespace covenant_node
