// The engine on several devices: checks of arguments, then the backend's functions.
#include "covenant/parallel.h"

#include <new>

#include "device/backend.h"
#include "device/checks.h"
#include "device/parallel_table.h"

struct cov_parallel_model {
  void* handle;
  const covenant::device::ParallelTable* table;
  cov_model_shape shape;
  uint64_t parameters;
  int32_t devices, replicas;
};

using namespace covenant::device;

namespace {

cov_status no_model() { return cov_error(COV_INVALID_ARGUMENT, "model is null"); }

cov_status check_devices(const int32_t* devices, int32_t count) {
  if (devices == nullptr || count < 1 || count > COV_PARALLEL_DEVICES_MAX)
    return cov_error(COV_INVALID_ARGUMENT, "1 to %d devices must be given", COV_PARALLEL_DEVICES_MAX);
  if (backend() == nullptr) return unavailable();
  for (int32_t i = 0; i < count; ++i) {
    if (devices[i] < 0 || devices[i] >= cov_device_count())
      return cov_error(COV_OUT_OF_RANGE, "there is no CUDA device %d; there are %d", devices[i],
                       cov_device_count());
    for (int32_t j = 0; j < i; ++j)
      if (devices[i] == devices[j])
        return cov_error(COV_INVALID_ARGUMENT, "device %d is given twice", devices[i]);
  }
  return cov_ok();
}

cov_status check_create(const cov_model_shape* shape, const cov_parallel_options* options,
                        int32_t device_count) {
  if (const cov_status status = cov_shape_check(shape); status.code != COV_OK) return status;
  if (options == nullptr) return cov_error(COV_INVALID_ARGUMENT, "options must be given");
  if (options->compute != COV_COMPUTE_F32 && options->compute != COV_COMPUTE_BF16)
    return cov_error(COV_INVALID_ARGUMENT, "compute is %d, must be a cov_compute", options->compute);
  if (options->collectives != COV_COLLECTIVES_ORDERED && options->collectives != COV_COLLECTIVES_NCCL)
    return cov_error(COV_INVALID_ARGUMENT, "collectives is %d, must be a cov_collectives",
                     options->collectives);
  const int32_t stages = options->stages;
  if (stages < 0 || stages > device_count || (stages > 0 && device_count % stages != 0))
    return cov_error(COV_INVALID_ARGUMENT, "stages is %d, must divide the %d devices", stages,
                     device_count);
  if (stages > shape->layer_count)
    return cov_error(COV_INVALID_ARGUMENT, "stages is %d, the model has %d layers", stages,
                     shape->layer_count);
  return cov_ok();
}

}  // namespace

cov_status cov_parallel_model_create(const int32_t* devices, int32_t device_count,
                                     const cov_model_shape* shape,
                                     const cov_parallel_options* options,
                                     cov_parallel_model** model) {
  if (model == nullptr) return cov_error(COV_INVALID_ARGUMENT, "the result pointer must be given");
  *model = nullptr;
  cov_status status = check_devices(devices, device_count);
  if (status.code == COV_OK) status = check_create(shape, options, device_count);
  if (status.code != COV_OK) return status;
  cov_parallel_options chosen = *options;
  if (chosen.stages == 0) chosen.stages = 1;
  auto* const created = new (std::nothrow)
      cov_parallel_model{nullptr,      backend()->parallel,         *shape, cov_parameter_count(shape),
                         device_count, device_count / chosen.stages};
  if (created == nullptr) return cov_error(COV_OUT_OF_MEMORY, "no memory for a model");
  status = created->table->create(devices, device_count, shape, &chosen, &created->handle);
  if (status.code != COV_OK)
    delete created;
  else
    *model = created;
  return status;
}

void cov_parallel_model_release(cov_parallel_model* model) {
  if (model == nullptr) return;
  model->table->release(model->handle);
  delete model;
}

const char* cov_parallel_model_report(const cov_parallel_model* model) {
  return model == nullptr ? "" : model->table->report(model->handle);
}

cov_status cov_parallel_model_device(cov_parallel_model* model, int32_t place, int32_t* first_layer,
                                     int32_t* layers, uint64_t* bytes, uint64_t* peak_bytes) {
  if (model == nullptr) return no_model();
  if (place < 0 || place >= model->devices)
    return cov_error(COV_OUT_OF_RANGE, "there is no device %d in the model; there are %d", place,
                     model->devices);
  int32_t first = 0, count = 0;
  uint64_t now = 0, peak = 0;
  const cov_status status = model->table->device(model->handle, place, &first, &count, &now, &peak);
  if (status.code != COV_OK) return status;
  if (first_layer != nullptr) *first_layer = first;
  if (layers != nullptr) *layers = count;
  if (bytes != nullptr) *bytes = now;
  if (peak_bytes != nullptr) *peak_bytes = peak;
  return status;
}

cov_status cov_parallel_model_read(cov_parallel_model* model, int32_t which, uint64_t offset,
                                   uint64_t count, float* values) {
  if (model == nullptr) return no_model();
  const cov_status status = check_range(model->parameters, which, offset, count, values);
  if (status.code != COV_OK) return status;
  return model->table->read(model->handle, -1, which, offset, count, values);
}

cov_status cov_parallel_model_read_replica(cov_parallel_model* model, int32_t replica, int32_t which,
                                           uint64_t offset, uint64_t count, float* values) {
  if (model == nullptr) return no_model();
  if (replica < 0 || replica >= model->replicas)
    return cov_error(COV_OUT_OF_RANGE, "there is no replica %d; there are %d", replica,
                     model->replicas);
  const cov_status status = check_range(model->parameters, which, offset, count, values);
  if (status.code != COV_OK) return status;
  return model->table->read(model->handle, replica, which, offset, count, values);
}

cov_status cov_parallel_model_write(cov_parallel_model* model, int32_t which, uint64_t offset,
                                    uint64_t count, const float* values) {
  if (model == nullptr) return no_model();
  const cov_status status = check_range(model->parameters, which, offset, count, values);
  if (status.code != COV_OK) return status;
  return model->table->write(model->handle, which, offset, count, values);
}

int64_t cov_parallel_model_step_count(const cov_parallel_model* model) {
  return model->table->step_count(model->handle);
}

cov_status cov_parallel_model_set_step_count(cov_parallel_model* model, int64_t count) {
  if (model == nullptr || count < 0)
    return cov_error(COV_INVALID_ARGUMENT, "the step count must not be negative");
  model->table->set_step_count(model->handle, count);
  return cov_ok();
}

cov_status cov_parallel_model_forward(cov_parallel_model* model, const cov_batch* batch,
                                      const cov_device_forward_options* options,
                                      const cov_device_forward_output* output) {
  if (model == nullptr) return no_model();
  cov_status status = check_batch(model->shape, batch);
  if (status.code == COV_OK) status = check_forward(options, output);
  if (status.code != COV_OK) return status;
  return model->table->forward(model->handle, batch, options, output);
}

cov_status cov_parallel_model_backward(cov_parallel_model* model, const float* coefficients,
                                       uint64_t count) {
  if (model == nullptr) return no_model();
  const cov_status status = check_coefficients(coefficients, count);
  if (status.code != COV_OK) return status;
  return model->table->backward(model->handle, coefficients, count);
}

cov_status cov_parallel_model_optimizer_step(cov_parallel_model* model,
                                             const cov_adamw_options* options,
                                             float* gradient_norm) {
  if (model == nullptr) return no_model();
  cov_status status = check_adamw(options);
  if (status.code != COV_OK) return status;
  double norm = 0.0;
  status = model->table->optimizer_step(model->handle, options, &norm);
  if (status.code == COV_OK && gradient_norm != nullptr) *gradient_norm = static_cast<float>(norm);
  return status;
}

cov_status cov_parallel_model_train_step(cov_parallel_model* model, const cov_batch* batch,
                                         const cov_adamw_options* options, double* loss,
                                         float* gradient_norm) {
  if (model == nullptr) return no_model();
  cov_status status = check_batch(model->shape, batch);
  if (status.code == COV_OK) status = check_adamw(options);
  if (status.code != COV_OK) return status;
  double mean = 0.0, norm = 0.0;
  status = model->table->train_step(model->handle, batch, options, &mean, &norm);
  if (status.code != COV_OK) return status;
  if (loss != nullptr) *loss = mean;
  if (gradient_norm != nullptr) *gradient_norm = static_cast<float>(norm);
  return status;
}
