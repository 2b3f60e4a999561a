// The engine on several devices: checks of arguments, then the backend's functions.
#include "covenant/parallel.h"

#include <new>

#include "device/backend.h"
#include "device/checks.h"
#include "device/generator.h"
#include "device/parallel_table.h"
#include "device/training.h"

struct cov_parallel_model : covenant::device::TrainingModel {
  cov_parallel_model(const covenant::device::ParallelTable& parallel, const cov_model_shape& of,
                     int32_t device_count, int32_t stages)
      : TrainingModel(parallel.training, of),
        table(&parallel),
        devices(device_count),
        replicas(device_count / stages) {}
  const covenant::device::ParallelTable* table;
  int32_t devices, replicas;
};

using namespace covenant::device;

namespace {

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
      cov_parallel_model(*backend()->parallel, *shape, device_count, chosen.stages);
  if (created == nullptr) return cov_error(COV_OUT_OF_MEMORY, "no memory for a model");
  status = created->table->create(devices, device_count, shape, &chosen, &created->handle);
  if (status.code != COV_OK)
    delete created;
  else
    *model = created;
  return status;
}

void cov_parallel_model_release(cov_parallel_model* model) {
  release(model);
}

cov_status cov_parallel_model_create_lora(cov_parallel_model* model, const cov_lora_options* options,
                                          cov_device_lora** lora) {
  return create_lora(model, options, lora);
}

cov_status cov_parallel_model_use_lora(cov_parallel_model* model, cov_device_lora* lora) {
  return use_lora(model, lora);
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
  return read_values(model, which, offset, count, values);
}

cov_status cov_parallel_model_read_replica(cov_parallel_model* model, int32_t replica, int32_t which,
                                           uint64_t offset, uint64_t count, float* values) {
  if (model == nullptr) return no_model();
  if (replica < 0 || replica >= model->replicas)
    return cov_error(COV_OUT_OF_RANGE, "there is no replica %d; there are %d", replica,
                     model->replicas);
  const cov_status status = check_range(model->length, which, offset, count, values);
  if (status.code != COV_OK) return status;
  return model->table->read_replica(model->handle, replica, which, offset, count, values);
}

cov_status cov_parallel_model_write(cov_parallel_model* model, int32_t which, uint64_t offset,
                                    uint64_t count, const float* values) {
  return write_values(model, which, offset, count, values);
}

int64_t cov_parallel_model_step_count(const cov_parallel_model* model) { return step_count(model); }

cov_status cov_parallel_model_set_step_count(cov_parallel_model* model, int64_t count) {
  return set_step_count(model, count);
}

cov_status cov_parallel_model_forward(cov_parallel_model* model, const cov_batch* batch,
                                      const cov_forward_options* options,
                                      const cov_forward_output* output) {
  return forward(model, batch, options, output);
}

cov_status cov_parallel_model_backward(cov_parallel_model* model, const float* coefficients,
                                       uint64_t count) {
  return backward(model, coefficients, count);
}

cov_status cov_parallel_model_optimizer_step(cov_parallel_model* model,
                                             const cov_adamw_options* options, float* gradient_norm) {
  return optimizer_step(model, options, gradient_norm);
}

cov_status cov_parallel_model_generate(cov_parallel_model* model, const cov_generate_request* requests,
                                       int32_t request_count, const cov_generate_options* options,
                                       cov_generate_output* outputs) {
  return generate(model, requests, request_count, options, outputs);
}

cov_status cov_parallel_model_replay(cov_parallel_model* model, const cov_replay_request* requests,
                                     int32_t request_count, const cov_replay_options* options,
                                     const cov_replay_output* outputs) {
  return replay(model, requests, request_count, options, outputs);
}

cov_status cov_parallel_generator_create(cov_parallel_model* model,
                                         const cov_generator_options* options,
                                         cov_device_generator** generator) {
  return create_generator(model, model == nullptr ? nullptr : model->table->create_generator, options,
                          generator);
}

cov_status cov_parallel_model_train_step(cov_parallel_model* model, const cov_batch* batch,
                                         const cov_adamw_options* options, double* loss,
                                         float* gradient_norm) {
  return train_step(model, batch, options, loss, gradient_norm);
}
