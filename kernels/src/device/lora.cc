// Adapters of a model on devices: checks of arguments, then the backend's functions.
#include "covenant/device_lora.h"

#include <new>

#include "device/training.h"
#include "engine/lora_plan.h"
#include "engine/model.h"

using namespace covenant::device;

struct cov_device_lora : Trained {
  TrainingModel* model;

  explicit cov_device_lora(TrainingModel& of) : Trained(of.training->lora.state, 0), model(&of) {
    ++model->references;
  }
  const LoraTable& table() const { return model->training->lora; }
};

namespace {

cov_status no_adapters() { return cov_error(COV_INVALID_ARGUMENT, "the adapters are null"); }

}  // namespace

namespace covenant::device {

cov_status create_lora(TrainingModel* model, const cov_lora_options* options, cov_device_lora** lora) {
  if (lora != nullptr) *lora = nullptr;
  if (model == nullptr || options == nullptr || lora == nullptr)
    return cov_error(COV_INVALID_ARGUMENT, "model, options and the result pointer must be given");
  cov_status status = guarded([&] {
    check_lora_options(*options);
    return cov_ok();
  });
  if (status.code != COV_OK) return status;
  auto* const created = new (std::nothrow) cov_device_lora(*model);
  if (created == nullptr) return cov_error(COV_OUT_OF_MEMORY, "no memory for adapters");
  status = created->table().create(model->handle, options, &created->handle, &created->length);
  if (status.code == COV_OK)
    *lora = created;
  else
    cov_device_lora_release(created);
  return status;
}

cov_status use_lora(TrainingModel* model, cov_device_lora* lora) {
  if (model == nullptr) return no_model();
  if (lora != nullptr && lora->model != model)
    return cov_error(COV_INVALID_ARGUMENT, "the adapters belong to another model");
  return model->training->lora.use(model->handle, lora == nullptr ? nullptr : lora->handle);
}

}  // namespace covenant::device

void cov_device_lora_release(cov_device_lora* lora) {
  if (lora == nullptr) return;
  TrainingModel* const model = lora->model;
  delete lora;
  release(model);
}

uint64_t cov_device_lora_length(const cov_device_lora* lora) {
  return lora == nullptr ? 0 : lora->length;
}

cov_status cov_device_lora_read(cov_device_lora* lora, int32_t which, uint64_t offset,
                                uint64_t count, float* values) {
  return lora == nullptr ? no_adapters() : read_values(lora, which, offset, count, values);
}

cov_status cov_device_lora_write(cov_device_lora* lora, int32_t which, uint64_t offset,
                                 uint64_t count, const float* values) {
  return lora == nullptr ? no_adapters() : write_values(lora, which, offset, count, values);
}

int64_t cov_device_lora_step_count(const cov_device_lora* lora) { return step_count(lora); }

cov_status cov_device_lora_set_step_count(cov_device_lora* lora, int64_t count) {
  return set_step_count(lora, count);
}

uint64_t cov_device_lora_memory_bytes(const cov_device_lora* lora) {
  return lora == nullptr ? 0 : lora->table().memory_bytes(lora->handle);
}

cov_status cov_device_lora_optimizer_step(cov_device_lora* lora, const cov_adamw_options* options,
                                          float* gradient_norm) {
  return lora == nullptr ? no_adapters() : optimizer_step(lora, options, gradient_norm);
}

cov_status cov_device_lora_merge(cov_device_lora* lora, int32_t reversible) {
  return lora == nullptr ? no_adapters() : lora->table().merge(lora->handle, reversible);
}

cov_status cov_device_lora_unmerge(cov_device_lora* lora) {
  return lora == nullptr ? no_adapters() : lora->table().unmerge(lora->handle);
}
