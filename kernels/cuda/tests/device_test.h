// Opening the device that a test runs on: the emulated one, or a real one if there is any.
#pragma once

#include <cstdio>
#include <memory>

#include "check.h"
#include "covenant/device.h"
#include "runtime/device.h"

namespace covenant_test {

// ctest shows a test that returns this as skipped.
constexpr int kSkipped = 77;

// False, with the reason on stdout, where there is no device.
inline bool have_device() {
  if (cov_device_count() > 0) return true;
  std::printf("skipped: %s\n", cov_device_report());
  return false;
}

inline bool have_devices(int32_t count) {
  if (!have_device()) return false;
  if (cov_device_count() >= count) return true;
  std::printf("skipped: %d devices are needed\n", static_cast<int>(count));
  return false;
}

struct CloseDevice {
  void operator()(cov_device* device) const { cov_device_close(device); }
};
using DevicePointer = std::unique_ptr<cov_device, CloseDevice>;

inline DevicePointer open_device(uint64_t memory_limit_bytes = 0) {
  cov_device* device = nullptr;
  CHECK_OK(cov_device_open(0, memory_limit_bytes, &device));
  return DevicePointer(device);
}

}  // namespace covenant_test
