// The calls of the class Model by what computes them: the CPU, one CUDA device, or several. Only on the
// engine thread, or with its `busy` held.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "covenant/device_lora.h"
#include "covenant/device_model.h"
#include "covenant/generator.h"
#include "covenant/lora.h"
#include "covenant/model.h"
#include "covenant/parallel.h"

namespace covenant_node {

// What a model and its adapters both have: buffers that learn.
class LearnedCalls {
 public:
  LearnedCalls() = default;
  LearnedCalls(const LearnedCalls&) = delete;
  LearnedCalls& operator=(const LearnedCalls&) = delete;
  virtual ~LearnedCalls() = default;

  // The live buffer `which` (a cov_buffer); COV_UNSUPPORTED on devices.
  virtual cov_status buffer(int32_t which, float** data, uint64_t* length);
  // Copies to and from a part of it.
  virtual cov_status read(int32_t which, uint64_t offset, uint64_t count, float* values);
  virtual cov_status write(int32_t which, uint64_t offset, uint64_t count, const float* values);

  virtual cov_status optimizer_step(const cov_adamw_options& options, float* gradient_norm) = 0;
  virtual int64_t step_count() const = 0;
  virtual cov_status set_step_count(int64_t count) = 0;
  // Of all devices together. What has no peak of its own gives what there is.
  virtual void memory(uint64_t* bytes, uint64_t* peak_bytes) = 0;
};

class AdapterCalls : public LearnedCalls {
 public:
  // The model's calls work with these adapters from here on.
  virtual cov_status use() = 0;
  virtual cov_status merge(bool reversible) = 0;
  virtual cov_status unmerge() = 0;
};

// Continuous batching; see covenant/generator.h.
class GeneratorCalls {
 public:
  GeneratorCalls() = default;
  GeneratorCalls(const GeneratorCalls&) = delete;
  GeneratorCalls& operator=(const GeneratorCalls&) = delete;
  virtual ~GeneratorCalls() = default;

  virtual cov_status refresh() = 0;
  virtual cov_status submit(const cov_generate_request& request,
                            const cov_fingerprint_options* fingerprint, int32_t top_count,
                            uint64_t* id) = 0;
  virtual cov_status cancel(uint64_t id) = 0;
  virtual cov_status step(cov_generator_callback callback, void* context, int32_t* active) = 0;
  virtual cov_generator_state state() const = 0;
};

class ModelCalls : public LearnedCalls {
 public:
  // The calls work without adapters from here on.
  virtual cov_status use_no_adapter() = 0;
  // `length`: floats in each buffer.
  virtual cov_status create_adapter(const cov_lora_options& options,
                                    std::unique_ptr<AdapterCalls>& adapter, uint64_t* length) = 0;
  // With the adapters in use.
  virtual cov_status create_generator(const cov_generator_options& options,
                                      std::unique_ptr<GeneratorCalls>& generator) = 0;

  virtual cov_status forward(const cov_batch& batch, const cov_forward_options& options,
                             const cov_forward_output& output) = 0;
  virtual cov_status backward(const float* coefficients, uint64_t count) = 0;
  virtual cov_status train_step(const cov_batch& batch, const cov_adamw_options& options,
                                double* loss, float* gradient_norm) = 0;
  virtual cov_status generate(const std::vector<cov_generate_request>& requests,
                              const cov_generate_options& options,
                              cov_generate_output* outputs) = 0;
  virtual cov_status replay(const std::vector<cov_replay_request>& requests,
                            const cov_replay_options& options,
                            const cov_replay_output* outputs) = 0;
};

// On the CPU; `model` is theirs.
cov_status cpu_calls(const cov_model_shape& shape, const cov_model_options& options,
                     std::unique_ptr<ModelCalls>& calls, cov_model** model);

// Where the layers of a model are.
struct DevicePlace {
  int32_t device = 0, first_layer = 0, layers = 0;
};

struct DeviceModelOptions {
  std::vector<int32_t> devices;
  int32_t stages = 1;  // devices that share the layers of one replica
  int32_t compute = COV_COMPUTE_F32;
  bool vendor_products = false;  // on one device
  int32_t collectives = COV_COLLECTIVES_ORDERED;
  uint64_t memory_limit_bytes = 0;  // of each device
};

// On one CUDA device or on several. `report` says how they share the work.
cov_status device_calls(const cov_model_shape& shape, const DeviceModelOptions& options,
                        std::unique_ptr<ModelCalls>& calls, std::vector<DevicePlace>& places,
                        std::string& report);

}  // namespace covenant_node
