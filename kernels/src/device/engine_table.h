// The engine's part of what the CUDA library offers (backend.h). Arguments are checked before.
#pragma once

#include "covenant/device_model.h"

namespace covenant::device {

struct EngineTable {
  cov_status (*create)(void* device, const cov_model_shape* shape, int32_t compute, void** model);
  void (*release)(void* model);
  cov_status (*read)(void* model, int32_t which, uint64_t offset, uint64_t count, float* values);
  cov_status (*write)(void* model, int32_t which, uint64_t offset, uint64_t count,
                      const float* values);
  int64_t (*step_count)(const void* model);
  void (*set_step_count)(void* model, int64_t count);
  cov_status (*forward)(void* model, const cov_batch* batch,
                        const cov_device_forward_options* options,
                        const cov_device_forward_output* output);
  cov_status (*backward)(void* model, const float* coefficients, uint64_t count);
  cov_status (*optimizer_step)(void* model, const cov_adamw_options* options, double* norm);
  cov_status (*train_step)(void* model, const cov_batch* batch, const cov_adamw_options* options,
                           double* loss, double* norm);
  cov_status (*generate)(void* model, const cov_generate_request* requests, int32_t count,
                         const cov_generate_options* options, cov_generate_output* outputs);
  cov_status (*replay)(void* model, const cov_replay_request* requests, int32_t count,
                       const cov_replay_options* options, const cov_replay_output* outputs);
};

}  // namespace covenant::device
