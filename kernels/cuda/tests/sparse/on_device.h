// Calls of the codec with vectors, on the CPU and on the device.
#pragma once

#include <vector>

#include "device_memory.h"
#include "sparse/fixtures.h"

namespace covenant_test {

using Table = std::vector<cov_tensor_info>;

inline int32_t count_of(const Table& tensors) { return static_cast<int32_t>(tensors.size()); }

inline Compressed compress_on_device(cov_device* device, const Table& tensors,
                                     cov_sparse_format format, const std::vector<float>& base,
                                     const std::vector<float>& current,
                                     const std::vector<float>& error_feedback, float decay,
                                     size_t skew = 0) {
  uint64_t bytes = 0;
  CHECK_OK(cov_sparse_size(tensors.data(), count_of(tensors), format, &bytes, nullptr));
  Compressed out{std::vector<uint8_t>(bytes), {}, {}};
  const OnDevice b(device, base, skew);
  const OnDevice c(device, current, skew);
  const OnDevice e(device, error_feedback, skew);
  const cov_sparse_source source{b.data(), c.data(), e.data(), base.size(), decay};
  out.status = cov_device_sparse_compress(device, &source, tensors.data(), count_of(tensors),
                                          format, out.body.data(), bytes);
  out.error_feedback = e.read();
  return out;
}

}  // namespace covenant_test
