#include "engine/generator.cuh"

#include <algorithm>

namespace covenant::cuda {
namespace {

constexpr int32_t kStepRows = 1024;

}  // namespace

Schedules::Schedules(Stages stages, const cov_generator_options& options, int of)
    : stages_(std::move(stages)),
      weights_(stages_, options.weights, GenerationWeights::Keep::kCopy),
      threads_(std::min(std::max(1, default_thread_count() / of), limits_of(options, kStepRows).batch)) {
  GeneratorLimits limits = limits_of(options, kStepRows);
  limits.positions = std::min<int64_t>(stages_.shape().max_positions, kCachePositionsMax);
  stages_.prepare_rope(limits.positions);
  const DecoderSize size = {step_rows_max(limits), limits.batch, limits.positions,
                            limits.batch * pages_for(limits.positions), true};
  for (size_t i = 0; i < stages_.count(); ++i)
    schedules_.push_back(std::make_unique<DeviceGeneration>(stages_, weights_, size, limits, threads_));
  stages_.finish();
}

Schedules::~Schedules() {
  (void)guard([&] { stages_.finish(); });
}

void Schedules::refresh() {
  for (const auto& schedule : schedules_)
    if (!schedule->generator.idle()) raise(COV_FAILED_PRECONDITION, "requests are under way");
  weights_.refresh();
  stages_.finish();
}

void DeviceGenerator::refresh() {
  schedules_.stages().activate();
  schedules_.refresh();
}

void DeviceGenerator::step(const Generator::Listener& listener) {
  schedules_.stages().activate();
  try {
    schedules_.at(0).step(listener);
  } catch (...) {
    // What was queued still reads the step's lists.
    (void)guard([&] { schedules_.stages().finish(); });
    throw;
  }
}

cov_generator_state DeviceGenerator::state() const {
  cov_generator_state state = schedules_.at(0).state();
  state.weight_bytes = schedules_.weight_bytes();
  return state;
}

}  // namespace covenant::cuda
