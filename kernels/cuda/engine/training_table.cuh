// The functions of device/training_table.h over a model's own: of one device or of several.
#pragma once

#include "device/training_table.h"
#include "runtime/device.h"

namespace covenant::cuda {

// `model_of` makes a handle a model that is ready to be called.
template <typename Model, Model& (*model_of)(void*)>
device::TrainingTable training_table() {
  return {
      .read =
          [](void* handle, int32_t which, uint64_t offset, uint64_t count, float* values) {
            return guard([&] {
              model_of(handle).read(static_cast<cov_buffer>(which), offset, count, values);
            });
          },
      .write =
          [](void* handle, int32_t which, uint64_t offset, uint64_t count, const float* values) {
            return guard([&] {
              model_of(handle).write(static_cast<cov_buffer>(which), offset, count, values);
            });
          },
      .step_count =
          [](const void* handle) { return static_cast<const Model*>(handle)->step_count; },
      .set_step_count =
          [](void* handle, int64_t count) { static_cast<Model*>(handle)->step_count = count; },
      .forward =
          [](void* handle, const cov_batch* batch, const cov_device_forward_options* options,
             const cov_device_forward_output* output) {
            return guard([&] { model_of(handle).forward(*batch, *options, *output); });
          },
      .backward =
          [](void* handle, const float* coefficients, uint64_t count) {
            return guard([&] { model_of(handle).backward(coefficients, count); });
          },
      .optimizer_step =
          [](void* handle, const cov_adamw_options* options, double* norm) {
            return guard([&] { *norm = model_of(handle).optimizer_step(*options); });
          },
      .train_step =
          [](void* handle, const cov_batch* batch, const cov_adamw_options* options, double* loss,
             double* norm) {
            return guard([&] { model_of(handle).train_step(*batch, *options, loss, norm); });
          },
  };
}

}  // namespace covenant::cuda
