// Values on a device and back, and bf16 ones widened, for tests of single kernels.
#pragma once

#include <bit>
#include <cstdint>
#include <vector>

#include "runtime/device.h"

namespace covenant_test {

inline float widen(uint16_t x) { return std::bit_cast<float>(static_cast<uint32_t>(x) << 16); }

template <typename T>
covenant::cuda::Buffer<T> on_device(covenant::cuda::Device& device, const std::vector<T>& values) {
  covenant::cuda::Buffer<T> buffer(device, values.size());
  device.upload(buffer.data(), values.data(), values.size() * sizeof(T));
  device.finish();
  return buffer;
}

template <typename T>
std::vector<T> from_device(covenant::cuda::Device& device, const covenant::cuda::Buffer<T>& buffer) {
  std::vector<T> values(buffer.count());
  device.download(values.data(), buffer.data(), values.size() * sizeof(T));
  device.finish();
  return values;
}

}  // namespace covenant_test
