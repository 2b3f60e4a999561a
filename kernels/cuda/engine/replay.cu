// Replay: the decoder of generation over prompts and completions.
#include <algorithm>

#include "engine/generator.cuh"
#include "generate/replay.h"

namespace covenant::cuda {
namespace {

constexpr int64_t kRows = 2048;  // computed together

}  // namespace

void replay(const Stages& stages, const cov_replay_request* requests, int32_t count,
            const cov_replay_options& options, const cov_replay_output* outputs, const Share& share) {
  if (count == 0) return;
  int64_t longest = 0, all = 0;
  for (int32_t i = 0; i < count; ++i) {
    const int64_t length = replayed_positions(requests[i]);
    longest = std::max(longest, length);
    all += length;
  }
  if (longest > kCachePositionsMax)
    raise(COV_UNSUPPORTED, "a request of %lld positions; replay on a device takes %lld",
          static_cast<long long>(longest), static_cast<long long>(kCachePositionsMax));
  const int64_t rows = std::min(kRows, all);
  stages.prepare_rope(longest);
  const StageWeights weights(stages, options.weights, GenerationWeights::Keep::kView);
  StagePages pages(stages, weights);
  // Of those computed together one continues, and the others begin.
  const DecoderSize size = {rows, rows, longest, pages_for(longest) + 2 * rows, false};
  DeviceDecoder decoder(stages, weights, pages, size);
  ThreadPool threads(share.threads());
  try {
    replay_all({stages.shape(), threads, decoder, pages, rows}, requests, count, options, outputs, share);
  } catch (...) {
    stages.finish();
    throw;
  }
}

void Model::replay(const cov_replay_request* requests, int32_t count,
                   const cov_replay_options& options, const cov_replay_output* outputs, const Share& share) {
  cuda::replay(Stages(*this), requests, count, options, outputs, share);
}

}  // namespace covenant::cuda
