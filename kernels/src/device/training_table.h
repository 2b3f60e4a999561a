// What the CUDA library offers alike of models on one device, of those on several, and of their adapters.
// Arguments are checked before.
#pragma once

#include "covenant/device_lora.h"

namespace covenant::device {

// Of whatever has parameters, gradients and moments. read and write: `which` is a cov_buffer.
struct StateTable {
  void (*release)(void* self);
  cov_status (*read)(void* self, int32_t which, uint64_t offset, uint64_t count, float* values);
  cov_status (*write)(void* self, int32_t which, uint64_t offset, uint64_t count,
                      const float* values);
  int64_t (*step_count)(const void* self);
  void (*set_step_count)(void* self, int64_t count);
  cov_status (*optimizer_step)(void* self, const cov_adamw_options* options, double* norm);
};

struct LoraTable {
  StateTable state;
  cov_status (*create)(void* model, const cov_lora_options* options, void** lora, uint64_t* length);
  cov_status (*use)(void* model, void* lora);
  cov_status (*merge)(void* lora, int32_t reversible);
  cov_status (*unmerge)(void* lora);
  uint64_t (*memory_bytes)(const void* lora);
};

struct TrainingTable {
  StateTable state;
  LoraTable lora;
  cov_status (*forward)(void* model, const cov_batch* batch,
                        const cov_forward_options* options,
                        const cov_forward_output* output);
  cov_status (*backward)(void* model, const float* coefficients, uint64_t count);
  cov_status (*train_step)(void* model, const cov_batch* batch, const cov_adamw_options* options,
                           double* loss, double* norm);
  cov_status (*generate)(void* model, const cov_generate_request* requests, int32_t count,
                         const cov_generate_options* options, cov_generate_output* outputs);
  cov_status (*replay)(void* model, const cov_replay_request* requests, int32_t count,
                       const cov_replay_options* options, const cov_replay_output* outputs);
};

}  // namespace covenant::device
