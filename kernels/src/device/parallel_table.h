// Several devices' part of what the CUDA library offers (backend.h). Arguments are checked before.
#pragma once

#include "covenant/parallel.h"

namespace covenant::device {

struct ParallelTable {
  cov_status (*create)(const int32_t* devices, int32_t count, const cov_model_shape* shape,
                       const cov_parallel_options* options, void** model);
  void (*release)(void* model);
  const char* (*report)(const void* model);
  cov_status (*device)(void* model, int32_t place, int32_t* first_layer, int32_t* layers,
                       uint64_t* bytes, uint64_t* peak_bytes);
  // replica -1: the model's values.
  cov_status (*read)(void* model, int32_t replica, int32_t which, uint64_t offset, uint64_t count,
                     float* values);
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
};

}  // namespace covenant::device
