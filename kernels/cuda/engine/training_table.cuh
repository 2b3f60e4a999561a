// The functions of device/training_table.h over classes of their own: a model and its adapters, on one device
// or on several.
#pragma once

#include "device/training_table.h"
#include "runtime/device.h"

namespace covenant::cuda {

// `of` makes a handle an object that is ready to be called.
template <typename T, T& (*of)(void*)>
device::StateTable state_table() {
  return {
      .release = [](void* handle) { delete static_cast<T*>(handle); },
      .read =
          [](void* handle, int32_t which, uint64_t offset, uint64_t count, float* values) {
            return guard(
                [&] { of(handle).read(static_cast<cov_buffer>(which), offset, count, values); });
          },
      .write =
          [](void* handle, int32_t which, uint64_t offset, uint64_t count, const float* values) {
            return guard(
                [&] { of(handle).write(static_cast<cov_buffer>(which), offset, count, values); });
          },
      .step_count = [](const void* handle) { return static_cast<const T*>(handle)->step_count(); },
      .set_step_count =
          [](void* handle, int64_t count) { static_cast<T*>(handle)->set_step_count(count); },
      .optimizer_step =
          [](void* handle, const cov_adamw_options* options, double* norm) {
            return guard([&] { *norm = of(handle).optimizer_step(*options); });
          },
  };
}

template <typename Model, Model& (*model_of)(void*), typename Lora, Lora& (*lora_of)(void*)>
device::LoraTable lora_table() {
  return {
      .state = state_table<Lora, lora_of>(),
      .create =
          [](void* handle, const cov_lora_options* options, void** lora, uint64_t* length) {
            return guard([&] {
              auto* const created = new Lora(model_of(handle), *options);
              *lora = created;
              *length = created->length();
            });
          },
      .use =
          [](void* handle, void* lora) {
            return guard([&] { model_of(handle).use_lora(static_cast<Lora*>(lora)); });
          },
      .merge =
          [](void* handle, int32_t reversible) {
            return guard([&] { lora_of(handle).merge(reversible != 0); });
          },
      .unmerge = [](void* handle) { return guard([&] { lora_of(handle).unmerge(); }); },
      .memory_bytes =
          [](const void* handle) { return static_cast<const Lora*>(handle)->memory_bytes(); },
  };
}

template <typename Model, Model& (*model_of)(void*), typename Lora, Lora& (*lora_of)(void*)>
device::TrainingTable training_table() {
  return {
      .state = state_table<Model, model_of>(),
      .lora = lora_table<Model, model_of, Lora, lora_of>(),
      .forward =
          [](void* handle, const cov_batch* batch, const cov_forward_options* options,
             const cov_forward_output* output) {
            return guard([&] { model_of(handle).forward(*batch, *options, *output); });
          },
      .backward =
          [](void* handle, const float* coefficients, uint64_t count) {
            return guard([&] { model_of(handle).backward(coefficients, count); });
          },
      .train_step =
          [](void* handle, const cov_batch* batch, const cov_adamw_options* options, double* loss,
             double* norm) {
            return guard([&] { model_of(handle).train_step(*batch, *options, loss, norm); });
          },
      .generate =
          [](void* handle, const cov_generate_request* requests, int32_t count,
             const cov_generate_options* options, cov_generate_output* outputs) {
            return guard([&] { model_of(handle).generate(requests, count, *options, outputs); });
          },
      .replay =
          [](void* handle, const cov_replay_request* requests, int32_t count,
             const cov_replay_options* options, const cov_replay_output* outputs) {
            return guard([&] { model_of(handle).replay(requests, count, *options, outputs); });
          },
  };
}

}  // namespace covenant::cuda
