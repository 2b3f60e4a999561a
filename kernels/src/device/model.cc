// The engine on a device: checks of arguments, then the backend's functions.
#include <new>

#include "covenant/device_model.h"
#include "device/backend.h"
#include "device/engine_table.h"
#include "device/generator.h"
#include "device/training.h"

struct cov_device_model : covenant::device::TrainingModel {
  cov_device_model(const covenant::device::EngineTable& engine, const cov_model_shape& of)
      : TrainingModel(engine.training, of), table(&engine) {}
  const covenant::device::EngineTable* table;
};

using namespace covenant::device;

cov_status cov_device_model_create(cov_device* device, const cov_model_shape* shape, int32_t compute,
                                   cov_device_model** model) {
  if (device == nullptr || model == nullptr)
    return cov_error(COV_INVALID_ARGUMENT, "the device and the result pointer must be given");
  *model = nullptr;
  if (const cov_status status = cov_shape_check(shape); status.code != COV_OK) return status;
  if (compute != COV_COMPUTE_F32 && compute != COV_COMPUTE_BF16 &&
      compute != (COV_COMPUTE_BF16 | COV_PRODUCTS_VENDOR))
    return cov_error(COV_INVALID_ARGUMENT,
                     "compute is %d, must be a cov_compute, or bf16 with products of the vendor",
                     compute);
  auto* const created = new (std::nothrow) cov_device_model(*backend()->engine, *shape);
  if (created == nullptr) return cov_error(COV_OUT_OF_MEMORY, "no memory for a model");
  const cov_status status =
      created->table->create(device->handle, shape, compute, &created->handle);
  if (status.code != COV_OK)
    delete created;
  else
    *model = created;
  return status;
}

void cov_device_model_release(cov_device_model* model) {
  release(model);
}

cov_status cov_device_model_create_lora(cov_device_model* model, const cov_lora_options* options,
                                        cov_device_lora** lora) {
  return create_lora(model, options, lora);
}

cov_status cov_device_model_use_lora(cov_device_model* model, cov_device_lora* lora) {
  return use_lora(model, lora);
}

cov_status cov_device_model_read(cov_device_model* model, int32_t which, uint64_t offset,
                                 uint64_t count, float* values) {
  return read_values(model, which, offset, count, values);
}

cov_status cov_device_model_write(cov_device_model* model, int32_t which, uint64_t offset,
                                  uint64_t count, const float* values) {
  return write_values(model, which, offset, count, values);
}

int64_t cov_device_model_step_count(const cov_device_model* model) { return step_count(model); }

cov_status cov_device_model_set_step_count(cov_device_model* model, int64_t count) {
  return set_step_count(model, count);
}

cov_status cov_device_model_forward(cov_device_model* model, const cov_batch* batch,
                                    const cov_forward_options* options,
                                    const cov_forward_output* output) {
  return forward(model, batch, options, output);
}

cov_status cov_device_model_backward(cov_device_model* model, const float* coefficients,
                                     uint64_t count) {
  return backward(model, coefficients, count);
}

cov_status cov_device_model_optimizer_step(cov_device_model* model, const cov_adamw_options* options,
                                           float* gradient_norm) {
  return optimizer_step(model, options, gradient_norm);
}

cov_status cov_device_model_train_step(cov_device_model* model, const cov_batch* batch,
                                       const cov_adamw_options* options, double* loss,
                                       float* gradient_norm) {
  return train_step(model, batch, options, loss, gradient_norm);
}

cov_status cov_device_model_generate(cov_device_model* model, const cov_generate_request* requests,
                                     int32_t request_count, const cov_generate_options* options,
                                     cov_generate_output* outputs) {
  return generate(model, requests, request_count, options, outputs);
}

cov_status cov_device_generator_create(cov_device_model* model, const cov_generator_options* options,
                                       cov_device_generator** generator) {
  return create_generator(model, model == nullptr ? nullptr : model->table->create_generator, options,
                          generator);
}

cov_status cov_device_model_graphs(const cov_device_model* model, cov_device_graphs* graphs) {
  if (model == nullptr || graphs == nullptr)
    return cov_error(COV_INVALID_ARGUMENT, "the model and the result pointer must be given");
  model->table->graphs(model->handle, graphs);
  return cov_ok();
}

cov_status cov_device_model_set_graphs(cov_device_model* model, int32_t enabled) {
  if (model == nullptr) return no_model();
  if (enabled != 0 && enabled != 1)
    return cov_error(COV_INVALID_ARGUMENT, "enabled is %d, must be 0 or 1", enabled);
  model->table->set_graphs(model->handle, enabled == 1);
  return cov_ok();
}

cov_status cov_device_model_replay(cov_device_model* model, const cov_replay_request* requests,
                                   int32_t request_count, const cov_replay_options* options,
                                   const cov_replay_output* outputs) {
  return replay(model, requests, request_count, options, outputs);
}
