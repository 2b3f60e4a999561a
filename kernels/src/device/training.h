// The calls that models on one device and on several have in common, and their adapters with them, with
// arguments checked.
#pragma once

#include "device/training_table.h"

namespace covenant::device {

// The backend's own object, with the calls for it.
struct Trained {
  void* handle = nullptr;
  const StateTable* state;
  uint64_t length;  // of a buffer

  Trained(const StateTable& table, uint64_t count) : state(&table), length(count) {}
  virtual ~Trained() {
    if (handle != nullptr) state->release(handle);
  }
  Trained(const Trained&) = delete;
  Trained& operator=(const Trained&) = delete;
};

// What cov_device_model and cov_parallel_model begin with.
struct TrainingModel : Trained {
  const TrainingTable* training;
  cov_model_shape shape;
  int32_t references = 1;  // the caller's, and one of each of its adapters and generators

  TrainingModel(const TrainingTable& table, const cov_model_shape& of)
      : Trained(table.state, cov_parameter_count(&of)), training(&table), shape(of) {}
};

void release(TrainingModel* model);

// COV_INVALID_ARGUMENT, for a model that is null.
cov_status no_model();

// As the calls of device_model.h and device_lora.h; the first argument may be null.
cov_status read_values(Trained* trained, int32_t which, uint64_t offset, uint64_t count,
                       float* values);
cov_status write_values(Trained* trained, int32_t which, uint64_t offset, uint64_t count,
                        const float* values);
int64_t step_count(const Trained* trained);
cov_status set_step_count(Trained* trained, int64_t count);
cov_status optimizer_step(Trained* trained, const cov_adamw_options* options, float* gradient_norm);
cov_status forward(TrainingModel* model, const cov_batch* batch,
                   const cov_forward_options* options,
                   const cov_forward_output* output);
cov_status backward(TrainingModel* model, const float* coefficients, uint64_t count);
cov_status train_step(TrainingModel* model, const cov_batch* batch,
                      const cov_adamw_options* options, double* loss, float* gradient_norm);
cov_status generate(TrainingModel* model, const cov_generate_request* requests, int32_t request_count,
                    const cov_generate_options* options, cov_generate_output* outputs);
cov_status replay(TrainingModel* model, const cov_replay_request* requests, int32_t request_count,
                  const cov_replay_options* options, const cov_replay_output* outputs);
cov_status create_lora(TrainingModel* model, const cov_lora_options* options, cov_device_lora** lora);
cov_status use_lora(TrainingModel* model, cov_device_lora* lora);

}  // namespace covenant::device
