// Several devices' part of what the CUDA library offers (backend.h). Arguments are checked before.
#pragma once

#include "covenant/generator.h"
#include "covenant/parallel.h"
#include "device/training_table.h"

namespace covenant::device {

struct ParallelTable {
  TrainingTable training;
  cov_status (*create)(const int32_t* devices, int32_t count, const cov_model_shape* shape,
                       const cov_parallel_options* options, void** model);
  const char* (*report)(const void* model);
  cov_status (*device)(void* model, int32_t place, int32_t* first_layer, int32_t* layers,
                       uint64_t* bytes, uint64_t* peak_bytes);
  cov_status (*read_replica)(void* model, int32_t replica, int32_t which, uint64_t offset,
                             uint64_t count, float* values);
  cov_status (*create_generator)(void* model, const cov_generator_options* options,
                                 void** generator);
};

}  // namespace covenant::device
