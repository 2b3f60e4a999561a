// The calls that models on one device and on several have in common, with their arguments checked.
#pragma once

#include "device/training_table.h"

namespace covenant::device {

// What cov_device_model and cov_parallel_model begin with.
struct TrainingModel {
  void* handle;  // the backend's own object
  const TrainingTable* training;
  cov_model_shape shape;
  uint64_t parameters;  // length of a buffer

  TrainingModel(const TrainingTable& table, const cov_model_shape& of)
      : handle(nullptr), training(&table), shape(of), parameters(cov_parameter_count(&of)) {}
};

// COV_INVALID_ARGUMENT, for a model that is null.
cov_status no_model();

// As the calls of device_model.h; model may be null.
cov_status read_values(TrainingModel* model, int32_t which, uint64_t offset, uint64_t count,
                       float* values);
cov_status write_values(TrainingModel* model, int32_t which, uint64_t offset, uint64_t count,
                        const float* values);
int64_t step_count(const TrainingModel* model);
cov_status set_step_count(TrainingModel* model, int64_t count);
cov_status forward(TrainingModel* model, const cov_batch* batch,
                   const cov_device_forward_options* options,
                   const cov_device_forward_output* output);
cov_status backward(TrainingModel* model, const float* coefficients, uint64_t count);
cov_status optimizer_step(TrainingModel* model, const cov_adamw_options* options,
                          float* gradient_norm);
cov_status train_step(TrainingModel* model, const cov_batch* batch,
                      const cov_adamw_options* options, double* loss, float* gradient_norm);

}  // namespace covenant::device
