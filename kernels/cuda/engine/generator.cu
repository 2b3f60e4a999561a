#include "engine/generator.cuh"

#include <algorithm>

namespace covenant::cuda {
namespace {

constexpr int32_t kStepRows = 1024;

}  // namespace

DeviceGenerator::DeviceGenerator(Model& model, const cov_generator_options& options)
    : model_(model),
      positions_(std::min<int64_t>(model.shape().max_positions, kCachePositionsMax)),
      weights_(model, options.weights, GenerationWeights::Keep::kCopy) {
  model.prepare_rope(positions_);
  GeneratorLimits limits = limits_of(options, kStepRows);
  limits.positions = positions_;
  const DecoderSize size = {step_rows_max(limits), limits.batch, positions_,
                            limits.batch * pages_for(positions_), true};
  const int threads = std::min(default_thread_count(), static_cast<int>(limits.batch));
  generation_ = std::make_unique<DeviceGeneration>(weights_, size, limits, threads);
  model.device().finish();
}

DeviceGenerator::~DeviceGenerator() {
  (void)guard([&] {
    activate();
    model_.device().finish();
  });
}

void DeviceGenerator::refresh() {
  if (!generator().idle()) raise(COV_FAILED_PRECONDITION, "requests are under way");
  weights_.refresh();
  model_.device().finish();
}

void DeviceGenerator::step(const Generator::Listener& listener) {
  try {
    generator().step(listener);
  } catch (...) {
    // What was queued still reads the step's lists.
    (void)guard([&] { model_.device().finish(); });
    throw;
  }
}

cov_generator_state DeviceGenerator::state() const {
  cov_generator_state state = generation_->generator.state();
  state.weight_bytes = weights_.bytes();
  return state;
}

}  // namespace covenant::cuda
