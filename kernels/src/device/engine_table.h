// The engine's part of what the CUDA library offers (backend.h). Arguments are checked before.
#pragma once

#include "covenant/device_model.h"
#include "covenant/generator.h"
#include "device/training_table.h"

namespace covenant::device {

struct EngineTable {
  TrainingTable training;
  cov_status (*create)(void* device, const cov_model_shape* shape, int32_t compute, void** model);
  void (*graphs)(const void* model, cov_device_graphs* graphs);
  void (*set_graphs)(void* model, bool enabled);
  cov_status (*create_generator)(void* model, const cov_generator_options* options,
                                 void** generator);
};

}  // namespace covenant::device
