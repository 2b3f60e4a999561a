#include "parallel/table.h"

#include "engine/training_table.cuh"
#include "parallel/parallel_generator.h"
#include "parallel/parallel_lora.h"

namespace covenant::cuda {
namespace {

ParallelModel& model_of(void* handle) { return *static_cast<ParallelModel*>(handle); }

ParallelLora& lora_of(void* handle) { return *static_cast<ParallelLora*>(handle); }

cov_status create(const int32_t* devices, int32_t count, const cov_model_shape* shape,
                  const cov_parallel_options* options, void** model) {
  return guard([&] { *model = new ParallelModel(devices, count, *shape, *options); });
}

const char* report(const void* handle) { return static_cast<const ParallelModel*>(handle)->report(); }

cov_status device(void* handle, int32_t place, int32_t* first_layer, int32_t* layers,
                  uint64_t* bytes, uint64_t* peak_bytes) {
  return guard([&] {
    Stage& stage = model_of(handle).stage_at(place);
    *first_layer = static_cast<int32_t>(stage.model.slice().layers_before);
    *layers = static_cast<int32_t>(stage.model.layout().layers);
    *bytes = stage.device.bytes();
    *peak_bytes = stage.device.peak_bytes();
  });
}

cov_status read_replica(void* handle, int32_t replica, int32_t which, uint64_t offset,
                        uint64_t count, float* values) {
  return guard([&] {
    model_of(handle).read_replica(replica, static_cast<cov_buffer>(which), offset, count, values);
  });
}

cov_status create_generator(void* handle, const cov_generator_options* options, void** generator) {
  return guard([&] {
    *generator = static_cast<AnyGenerator*>(new ParallelGenerator(model_of(handle), *options));
  });
}

}  // namespace

const device::ParallelTable& parallel_table() {
  static const device::ParallelTable table = {
      .training = training_table<ParallelModel, model_of, ParallelLora, lora_of>(),
      .create = create,
      .report = report,
      .device = device,
      .read_replica = read_replica,
      .create_generator = create_generator,
  };
  return table;
}

}  // namespace covenant::cuda
