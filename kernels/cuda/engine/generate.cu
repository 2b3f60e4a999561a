// Generation of a call: all its requests through a generator that lives for it, with the model's own weights.
#include <algorithm>

#include "engine/generator.cuh"

namespace covenant::cuda {
namespace {

constexpr int32_t kStepRows = 2048;

// No more than the requests can come to.
DecoderSize size_for(const cov_generate_request* requests, int32_t count, const GeneratorLimits& limits) {
  int64_t positions = 0;
  for (int32_t i = 0; i < count; ++i)
    positions = std::max(positions, int64_t{requests[i].prompt_length} + requests[i].max_new_tokens - 1);
  if (positions > kCachePositionsMax)
    raise(COV_UNSUPPORTED, "a request of %lld positions; generation on a device takes %lld",
          static_cast<long long>(positions), static_cast<long long>(kCachePositionsMax));
  const int64_t sequences = std::min<int64_t>(count, limits.batch);
  return {std::min(step_rows_max(limits), sequences * positions), sequences, positions,
          sequences * pages_for(positions), true};
}

}  // namespace

void generate(const Stages& stages, const cov_generate_request* requests, int32_t count,
              const cov_generate_options& options, cov_generate_output* outputs, const Share& share) {
  if (count == 0) return;
  const GeneratorLimits limits = {batch_of(options), kStepRows, 0};
  const DecoderSize size = size_for(requests, count, limits);
  // Of several stages each has something to do where there are requests for several schedules.
  const int64_t schedules = std::clamp<int64_t>((count + limits.batch - 1) / limits.batch, 1,
                                                static_cast<int64_t>(stages.count()));
  ThreadPool threads(std::min(share.threads(), static_cast<int>(size.drawn)));
  stages.prepare_rope(size.positions);
  const StageWeights weights(stages, options.weights, GenerationWeights::Keep::kView);
  std::vector<std::unique_ptr<DeviceGeneration>> generations;
  std::vector<Generator*> generators;
  for (int64_t i = 0; i < schedules; ++i) {
    generations.push_back(std::make_unique<DeviceGeneration>(stages, weights, size, limits, threads));
    generators.push_back(&generations.back()->generator);
  }
  try {
    generate_all(generators, requests, count, options, outputs, share);
  } catch (...) {
    stages.finish();
    throw;
  }
}

void Model::generate(const cov_generate_request* requests, int32_t count,
                     const cov_generate_options& options, cov_generate_output* outputs,
                     const Share& share) {
  cuda::generate(Stages(*this), requests, count, options, outputs, share);
}

}  // namespace covenant::cuda
