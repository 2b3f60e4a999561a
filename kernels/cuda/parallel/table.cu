#include "parallel/table.h"

#include "parallel/parallel_model.h"

namespace covenant::cuda {
namespace {

ParallelModel& model_of(void* handle) { return *static_cast<ParallelModel*>(handle); }

cov_status create(const int32_t* devices, int32_t count, const cov_model_shape* shape,
                  const cov_parallel_options* options, void** model) {
  return guard([&] { *model = new ParallelModel(devices, count, *shape, *options); });
}

void release(void* handle) { delete static_cast<ParallelModel*>(handle); }

const char* report(const void* handle) { return static_cast<const ParallelModel*>(handle)->report(); }

cov_status device(void* handle, int32_t place, int32_t* first_layer, int32_t* layers,
                  uint64_t* bytes, uint64_t* peak_bytes) {
  return guard([&] {
    Stage& stage = model_of(handle).stage_at(place);
    *first_layer = static_cast<int32_t>(stage.first_layer);
    *layers = static_cast<int32_t>(stage.model.layout().layers);
    *bytes = stage.device.bytes();
    *peak_bytes = stage.device.peak_bytes();
  });
}

cov_status read(void* handle, int32_t replica, int32_t which, uint64_t offset, uint64_t count,
                float* values) {
  return guard([&] {
    model_of(handle).read(replica, static_cast<cov_buffer>(which), offset, count, values);
  });
}

cov_status write(void* handle, int32_t which, uint64_t offset, uint64_t count,
                 const float* values) {
  return guard(
      [&] { model_of(handle).write(static_cast<cov_buffer>(which), offset, count, values); });
}

int64_t step_count(const void* handle) {
  return static_cast<const ParallelModel*>(handle)->step_count;
}

void set_step_count(void* handle, int64_t count) { model_of(handle).step_count = count; }

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

}  // namespace

const device::ParallelTable& parallel_table() {
  static const device::ParallelTable table = {
      .create = create,
      .release = release,
      .report = report,
      .device = device,
      .read = read,
      .write = write,
      .step_count = step_count,
      .set_step_count = set_step_count,
      .forward = forward,
      .backward = backward,
      .optimizer_step = optimizer_step,
      .train_step = train_step,
  };
  return table;
}

}  // namespace covenant::cuda
