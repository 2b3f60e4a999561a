// Tables, random values and small helpers of the sparse tests.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <initializer_list>
#include <string>
#include <vector>

#include "check.h"
#include "covenant/rng.h"
#include "covenant/sparse.h"

namespace covenant_test {

// A table of one-dimensional tensors, one after the other.
inline std::vector<cov_tensor_info> table(std::initializer_list<uint64_t> lengths) {
  std::vector<cov_tensor_info> tensors;
  uint64_t offset = 0;
  for (const uint64_t length : lengths) {
    cov_tensor_info info{};
    std::snprintf(info.name, sizeof info.name, "tensor.%zu", tensors.size());
    info.rank = 1;
    info.dims[0] = static_cast<int64_t>(length);
    info.dims[1] = 1;
    info.offset = offset;
    info.length = length;
    offset += length;
    tensors.push_back(info);
  }
  return tensors;
}

inline uint64_t total(const std::vector<cov_tensor_info>& tensors) {
  return tensors.empty() ? 0 : tensors.back().offset + tensors.back().length;
}

// Uniform in (0, 1), the same on every machine.
class Random {
 public:
  explicit Random(uint32_t seed)
      : seed_{static_cast<uint8_t>(seed), static_cast<uint8_t>(seed >> 8), 1} {}
  double uniform() { return cov_uniform_at(seed_, index_++); }
  uint32_t below(uint32_t limit) { return static_cast<uint32_t>(uniform() * limit); }
  double laplace() {
    const double u = uniform() - 0.5;
    return (u < 0 ? 1 : -1) * std::log(1 - 2 * std::fabs(u));
  }
  double gaussian() {
    const double radius = std::sqrt(-2 * std::log(uniform()));
    return radius * std::cos(6.283185307179586 * uniform());
  }
  std::vector<float> values(size_t count, double scale) {
    std::vector<float> out(count);
    for (float& value : out) value = static_cast<float>(laplace() * scale);
    return out;
  }

 private:
  uint8_t seed_[32];
  uint32_t index_ = 0;
};

struct Compressed {
  std::vector<uint8_t> body;
  std::vector<float> error_feedback;
  cov_status status;
};

inline Compressed compress(const std::vector<cov_tensor_info>& tensors, cov_sparse_format format,
                           const std::vector<float>& base, const std::vector<float>& current,
                           std::vector<float> error_feedback, float decay = 0.95f,
                           int32_t threads = 1) {
  uint64_t bytes = 0;
  CHECK_OK(cov_sparse_size(tensors.data(), static_cast<int32_t>(tensors.size()), format, &bytes,
                           nullptr));
  Compressed out{std::vector<uint8_t>(bytes), std::move(error_feedback), {}};
  const cov_sparse_source source{base.data(), current.data(), out.error_feedback.data(),
                                 base.size(), decay};
  out.status = cov_sparse_compress(&source, tensors.data(), static_cast<int32_t>(tensors.size()),
                                   format, threads, out.body.data(), bytes);
  return out;
}

struct Decoded {
  std::vector<uint32_t> indices;
  std::vector<float> values;
  cov_status status;
};

inline Decoded decode(const std::vector<uint8_t>& body, const std::vector<cov_tensor_info>& tensors,
                      cov_sparse_format format) {
  const auto count = static_cast<int32_t>(tensors.size());
  uint64_t kept = 0;
  Decoded out{
      {}, {}, cov_sparse_check(body.data(), body.size(), tensors.data(), count, format, &kept)};
  if (out.status.code != COV_OK) return out;
  out.indices.resize(kept);
  out.values.resize(kept);
  out.status = cov_sparse_decode(body.data(), body.size(), tensors.data(), count, format,
                                 out.indices.data(), out.values.data(), kept, &kept);
  CHECK(kept == out.indices.size());
  return out;
}

inline std::vector<float> zeros(size_t count) { return std::vector<float>(count, 0.0f); }

}  // namespace covenant_test
