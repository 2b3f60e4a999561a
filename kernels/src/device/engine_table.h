// The engine's part of what the CUDA library offers (backend.h). Arguments are checked before.
#pragma once

#include "covenant/device_model.h"
#include "device/training_table.h"

namespace covenant::device {

struct EngineTable {
  TrainingTable training;
  cov_status (*create)(void* device, const cov_model_shape* shape, int32_t compute, void** model);
  cov_status (*generate)(void* model, const cov_generate_request* requests, int32_t count,
                         const cov_generate_options* options, cov_generate_output* outputs);
  cov_status (*replay)(void* model, const cov_replay_request* requests, int32_t count,
                       const cov_replay_options* options, const cov_replay_output* outputs);
  void (*graphs)(const void* model, cov_device_graphs* graphs);
  void (*set_graphs)(void* model, bool enabled);
};

}  // namespace covenant::device
