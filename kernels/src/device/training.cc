#include "device/training.h"

#include "device/checks.h"

namespace covenant::device {

void release(TrainingModel* model) {
  if (model != nullptr && --model->references == 0) delete model;
}

cov_status no_model() { return cov_error(COV_INVALID_ARGUMENT, "model is null"); }

cov_status read_values(Trained* trained, int32_t which, uint64_t offset, uint64_t count,
                       float* values) {
  if (trained == nullptr) return no_model();
  const cov_status status = check_range(trained->length, which, offset, count, values);
  if (status.code != COV_OK) return status;
  return trained->state->read(trained->handle, which, offset, count, values);
}

cov_status write_values(Trained* trained, int32_t which, uint64_t offset, uint64_t count,
                        const float* values) {
  if (trained == nullptr) return no_model();
  const cov_status status = check_range(trained->length, which, offset, count, values);
  if (status.code != COV_OK) return status;
  return trained->state->write(trained->handle, which, offset, count, values);
}

int64_t step_count(const Trained* trained) {
  return trained == nullptr ? 0 : trained->state->step_count(trained->handle);
}

cov_status set_step_count(Trained* trained, int64_t count) {
  if (trained == nullptr || count < 0)
    return cov_error(COV_INVALID_ARGUMENT, "the step count must not be negative");
  trained->state->set_step_count(trained->handle, count);
  return cov_ok();
}

cov_status optimizer_step(Trained* trained, const cov_adamw_options* options, float* gradient_norm) {
  if (trained == nullptr) return no_model();
  cov_status status = check_adamw(options);
  if (status.code != COV_OK) return status;
  double norm = 0.0;
  status = trained->state->optimizer_step(trained->handle, options, &norm);
  if (status.code == COV_OK && gradient_norm != nullptr) *gradient_norm = static_cast<float>(norm);
  return status;
}

cov_status forward(TrainingModel* model, const cov_batch* batch,
                   const cov_forward_options* options,
                   const cov_forward_output* output) {
  if (model == nullptr) return no_model();
  cov_status status = check_batch(model->shape, batch);
  if (status.code == COV_OK) status = check_forward(model->shape, options, output);
  if (status.code != COV_OK) return status;
  return model->training->forward(model->handle, batch, options, output);
}

cov_status backward(TrainingModel* model, const float* coefficients, uint64_t count) {
  if (model == nullptr) return no_model();
  const cov_status status = check_coefficients(coefficients, count);
  if (status.code != COV_OK) return status;
  return model->training->backward(model->handle, coefficients, count);
}

cov_status train_step(TrainingModel* model, const cov_batch* batch,
                      const cov_adamw_options* options, double* loss, float* gradient_norm) {
  if (model == nullptr) return no_model();
  cov_status status = check_batch(model->shape, batch);
  if (status.code == COV_OK) status = check_adamw(options);
  if (status.code != COV_OK) return status;
  double mean = 0.0, norm = 0.0;
  status = model->training->train_step(model->handle, batch, options, &mean, &norm);
  if (status.code != COV_OK) return status;
  if (loss != nullptr) *loss = mean;
  if (gradient_norm != nullptr) *gradient_norm = static_cast<float>(norm);
  return status;
}

}  // namespace covenant::device
