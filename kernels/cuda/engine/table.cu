#include "engine/table.cuh"

#include "engine/model.cuh"
#include "runtime/platform.h"

namespace covenant::cuda {
namespace {

Model& model_of(void* handle) {
  auto* const model = static_cast<Model*>(handle);
  model->device().activate();
  return *model;
}

cov_status create(void* handle, const cov_model_shape* shape, int32_t compute, void** model) {
  return guard([&] {
    auto* const device = static_cast<Device*>(handle);
    device->activate();
    const bool vendor = (compute & COV_PRODUCTS_VENDOR) != 0;
    auto made = std::make_unique<Model>(*device, *shape,
                                        static_cast<Compute>(compute & ~COV_PRODUCTS_VENDOR));
    if (vendor) made->use_vendor();
    *model = made.release();
  });
}

void release(void* handle) {
  (void)guard([&] {
    Model& model = model_of(handle);
    model.device().finish();
  });
  delete static_cast<Model*>(handle);
}

cov_status read(void* handle, int32_t which, uint64_t offset, uint64_t count, float* values) {
  return guard([&] {
    Model& model = model_of(handle);
    const float* const from = model.state(static_cast<cov_buffer>(which));
    model.device().download(values, from + offset, count * sizeof(float));
    model.device().finish();
  });
}

cov_status write(void* handle, int32_t which, uint64_t offset, uint64_t count,
                 const float* values) {
  return guard([&] {
    Model& model = model_of(handle);
    float* const to = model.state(static_cast<cov_buffer>(which));
    model.device().upload(to + offset, values, count * sizeof(float));
    model.device().finish();
    if (which == COV_PARAMETERS) model.touch();
  });
}

int64_t step_count(const void* handle) { return static_cast<const Model*>(handle)->step_count; }

void set_step_count(void* handle, int64_t count) { static_cast<Model*>(handle)->step_count = count; }

cov_status forward(void* handle, const cov_batch* batch, const cov_device_forward_options* options,
                   const cov_device_forward_output* output) {
  return guard([&] { model_of(handle).forward(*batch, *options, *output); });
}

cov_status backward(void* handle, const float* coefficients, uint64_t count) {
  return guard([&] { model_of(handle).backward(coefficients, count); });
}

cov_status optimizer_step(void* handle, const cov_adamw_options* options, double* norm) {
  return guard([&] { *norm = model_of(handle).optimizer_step(*options); });
}

cov_status train_step(void* handle, const cov_batch* batch, const cov_adamw_options* options,
                      double* loss, double* norm) {
  return guard([&] { model_of(handle).train_step(*batch, *options, loss, norm); });
}

cov_status generate(void* handle, const cov_generate_request* requests, int32_t count,
                    const cov_generate_options* options, cov_generate_output* outputs) {
  return guard([&] { model_of(handle).generate(requests, count, *options, outputs); });
}

cov_status replay(void* handle, const cov_replay_request* requests, int32_t count,
                  const cov_replay_options* options, const cov_replay_output* outputs) {
  return guard([&] { model_of(handle).replay(requests, count, *options, outputs); });
}

}  // namespace

const device::EngineTable& engine_table() {
  static const device::EngineTable table = {
      .create = create,
      .release = release,
      .read = read,
      .write = write,
      .step_count = step_count,
      .set_step_count = set_step_count,
      .forward = forward,
      .backward = backward,
      .optimizer_step = optimizer_step,
      .train_step = train_step,
      .generate = generate,
      .replay = replay,
  };
  return table;
}

}  // namespace covenant::cuda
