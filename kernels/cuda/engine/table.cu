#include "engine/table.cuh"

#include "engine/generator.cuh"
#include "engine/lora.cuh"
#include "engine/training_table.cuh"
#include "runtime/platform.h"

namespace covenant::cuda {
namespace {

Model& model_of(void* handle) {
  auto* const model = static_cast<Model*>(handle);
  model->device().activate();
  return *model;
}

Lora& lora_of(void* handle) {
  auto* const lora = static_cast<Lora*>(handle);
  lora->model().device().activate();
  return *lora;
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

void graphs(const void* handle, cov_device_graphs* graphs) {
  const auto& model = *static_cast<const Model*>(handle);
  const GraphCounts& counts = model.graph_counts();
  *graphs = {model.graphs,      counts.captured,  counts.launched,
             counts.plain,      counts.nodes_max, counts.refusal};
}

void set_graphs(void* handle, bool enabled) { static_cast<Model*>(handle)->graphs = enabled; }

cov_status create_generator(void* handle, const cov_generator_options* options, void** generator) {
  return guard([&] {
    *generator = static_cast<AnyGenerator*>(new DeviceGenerator(model_of(handle), *options));
  });
}

}  // namespace

const device::EngineTable& engine_table() {
  static const device::EngineTable table = {
      .training = training_table<Model, model_of, Lora, lora_of>(),
      .create = create,
      .graphs = graphs,
      .set_graphs = set_graphs,
      .create_generator = create_generator,
  };
  return table;
}

}  // namespace covenant::cuda
