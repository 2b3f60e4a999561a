// Shapes, parameters and small helpers shared by the engine's tests.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "covenant/model.h"
#include "covenant/rng.h"
#include "../check.h"

namespace covenant_test {

// Deterministic uniform numbers in [-1, 1).
class Numbers {
 public:
  explicit Numbers(uint32_t seed) : key_{seed, 0x7e57u} {}
  float next() { return static_cast<float>(word() * (2.0 / 4294967296.0) - 1.0); }
  uint32_t word() {
    if (used_ == 4) {
      const uint32_t counter[4] = {block_++, 0, 0, 0};
      cov_philox4x32(key_, counter, out_);
      used_ = 0;
    }
    return out_[used_++];
  }
  int32_t below(int32_t bound) {
    return static_cast<int32_t>(word() % static_cast<uint32_t>(bound));
  }
  std::vector<float> floats(int64_t count, float scale = 1.0f) {
    std::vector<float> values(static_cast<size_t>(count));
    for (float& value : values) value = next() * scale;
    return values;
  }
  std::vector<int32_t> tokens(int64_t count, int32_t vocab) {
    std::vector<int32_t> values(static_cast<size_t>(count));
    for (int32_t& value : values) value = below(vocab);
    return values;
  }

 private:
  uint32_t key_[2];
  uint32_t block_ = 0, out_[4] = {}, used_ = 4;
};

// Odd sizes on purpose: nothing is a multiple of a vector, GQA with two query heads per kv head.
inline cov_model_shape tiny_shape() { return {37, 24, 20, 2, 4, 2, 64, 0, 10000.0, 1e-5}; }
// Tied embeddings, head size 32, sizes like those of real small models.
inline cov_model_shape small_shape() { return {256, 64, 160, 3, 2, 1, 192, 1, 10000.0, 1e-5}; }

// Larger than the usual initial values, so that attention and logits are far from uniform.
inline std::vector<float> lively_parameters(const cov_model_shape& shape, uint32_t seed) {
  std::vector<float> parameters(cov_parameter_count(&shape));
  CHECK_OK(cov_initial_parameters(&shape, seed, parameters.data(), parameters.size()));
  Numbers numbers(seed + 1);
  for (float& p : parameters) p = p == 1.0f ? 1.0f + 0.3f * numbers.next() : p * 10.0f;
  return parameters;
}

// Owns a model for the length of a test.
class TestModel {
 public:
  TestModel(const cov_model_shape& shape, const std::vector<float>& parameters, int threads = 1,
            uint64_t limit = 0, int32_t compute = COV_COMPUTE_F32) {
    const cov_model_options options = {parameters.data(), parameters.size(), threads, limit,
                                       compute};
    CHECK_OK(cov_model_create(&shape, &options, &model_));
  }
  ~TestModel() { cov_model_release(model_); }
  TestModel(const TestModel&) = delete;
  TestModel& operator=(const TestModel&) = delete;
  operator cov_model*() const { return model_; }  // NOLINT: implicit on purpose
  float* buffer(cov_buffer which) const {
    float* data = nullptr;
    uint64_t length = 0;
    CHECK_OK(cov_model_buffer(model_, which, &data, &length));
    return data;
  }

 private:
  cov_model* model_ = nullptr;
};

// The paths this machine can run.
inline std::vector<std::string> available_paths() {
  std::vector<std::string> names;
  for (const char* name : {"portable", "avx2", "avx512", "avx512bf16", "amx"})
    if (cov_set_cpu_path(name).code == COV_OK) names.push_back(name);
  cov_set_cpu_path(nullptr);
  return names;
}

}  // namespace covenant_test
