// The C API of the long-lived generator on devices: checks of arguments, then the backend's functions.
#include "device/generator.h"

#include <memory>
#include <new>

#include "device/backend.h"
#include "device/generator_table.h"
#include "generate/call.h"

struct cov_device_generator {
  covenant::device::TrainingModel* model;
  const covenant::device::GeneratorTable* table;
  void* handle = nullptr;

  cov_device_generator(covenant::device::TrainingModel* of,
                       const covenant::device::GeneratorTable* with)
      : model(of), table(with) {
    ++model->references;
  }
  // The model after the generator, which works on it.
  ~cov_device_generator() {
    if (handle != nullptr) table->release(handle);
    covenant::device::release(model);
  }
  cov_device_generator(const cov_device_generator&) = delete;
  cov_device_generator& operator=(const cov_device_generator&) = delete;
};

namespace covenant::device {
namespace {

cov_status no_generator() { return cov_error(COV_INVALID_ARGUMENT, "generator must be given"); }

}  // namespace

cov_status create_generator(TrainingModel* model, CreateGenerator create,
                            const cov_generator_options* options,
                            cov_device_generator** generator) {
  if (generator != nullptr) *generator = nullptr;
  cov_status status = check_generator_options(model != nullptr, options, generator != nullptr);
  if (status.code != COV_OK) return status;
  std::unique_ptr<cov_device_generator> created(
      new (std::nothrow) cov_device_generator(model, backend()->generator));
  if (created == nullptr) return cov_error(COV_OUT_OF_MEMORY, "no memory for a generator");
  status = create(model->handle, options, &created->handle);
  if (status.code == COV_OK) *generator = created.release();
  return status;
}

}  // namespace covenant::device

using covenant::device::no_generator;

void cov_device_generator_release(cov_device_generator* generator) { delete generator; }

cov_status cov_device_generator_refresh(cov_device_generator* generator) {
  if (generator == nullptr) return no_generator();
  return generator->table->refresh(generator->handle);
}

cov_status cov_device_generator_submit(cov_device_generator* generator,
                                       const cov_generate_request* request,
                                       const cov_fingerprint_options* fingerprint, int32_t top_count,
                                       uint64_t* id) {
  if (generator == nullptr || request == nullptr)
    return cov_error(COV_INVALID_ARGUMENT, "generator and request must be given");
  uint64_t given = 0;
  const cov_status status =
      generator->table->submit(generator->handle, request, fingerprint, top_count, &given);
  if (status.code == COV_OK && id != nullptr) *id = given;
  return status;
}

cov_status cov_device_generator_cancel(cov_device_generator* generator, uint64_t id) {
  if (generator == nullptr) return no_generator();
  return generator->table->cancel(generator->handle, id);
}

cov_status cov_device_generator_step(cov_device_generator* generator, cov_generator_callback callback,
                                     void* context, int32_t* active) {
  if (generator == nullptr || callback == nullptr)
    return cov_error(COV_INVALID_ARGUMENT, "generator and callback must be given");
  const cov_status status = generator->table->step(generator->handle, callback, context);
  if (active != nullptr) {
    const cov_generator_state state = cov_device_generator_get_state(generator);
    *active = state.running + state.waiting;
  }
  return status;
}

cov_generator_state cov_device_generator_get_state(const cov_device_generator* generator) {
  cov_generator_state state = {};
  if (generator != nullptr) generator->table->state(generator->handle, &state);
  return state;
}
