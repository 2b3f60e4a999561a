#include "engine/generator.cuh"

#include <algorithm>

namespace covenant::cuda {
namespace {

constexpr int32_t kStepRows = 1024;

}  // namespace

DeviceGenerator::DeviceGenerator(Stages stages, const cov_generator_options& options, int of)
    : stages_(std::move(stages)),
      positions_(std::min<int64_t>(stages_.shape().max_positions, kCachePositionsMax)),
      weights_(stages_, options.weights, GenerationWeights::Keep::kCopy) {
  stages_.prepare_rope(positions_);
  GeneratorLimits limits = limits_of(options, kStepRows);
  limits.positions = positions_;
  const DecoderSize size = {step_rows_max(limits), limits.batch, positions_,
                            limits.batch * pages_for(positions_), true};
  const int threads = std::min(std::max(1, default_thread_count() / of), static_cast<int>(limits.batch));
  generation_ = std::make_unique<DeviceGeneration>(stages_, weights_, size, limits, threads);
  stages_.finish();
}

DeviceGenerator::~DeviceGenerator() {
  (void)guard([&] { stages_.finish(); });
}

void DeviceGenerator::refresh() {
  if (!generation_->generator.idle()) raise(COV_FAILED_PRECONDITION, "requests are under way");
  weights_.refresh();
  stages_.finish();
}

void DeviceGenerator::step(const Generator::Listener& listener) {
  try {
    generation_->generator.step(listener);
  } catch (...) {
    // What was queued still reads the step's lists.
    (void)guard([&] { stages_.finish(); });
    throw;
  }
}

cov_generator_state DeviceGenerator::state() const {
  cov_generator_state state = generation_->generator.state();
  state.weight_bytes = weights_.bytes();
  return state;
}

}  // namespace covenant::cuda
