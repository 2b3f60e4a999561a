// Replay: the decoder of generation over prompts and completions.
#include <algorithm>

#include "engine/decoder.cuh"
#include "generate/replay.h"

namespace covenant::cuda {
namespace {

constexpr int64_t kRows = 2048;  // computed together

}  // namespace

void Model::replay(const cov_replay_request* requests, int32_t count,
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
  prepare_rope(longest);
  const int64_t rows = std::min(kRows, all);
  const GenerationWeights weights(*this, options.weights, GenerationWeights::Keep::kView);
  DevicePages pages(weights);
  // Of those computed together one continues, and the others begin.
  const DecoderSize size = {rows, rows, longest, pages_for(longest) + 2 * rows, false};
  DeviceDecoder decoder(weights, pages, size);
  ThreadPool threads(share.threads());
  try {
    replay_all({shape_, threads, decoder, pages, rows}, requests, count, options, outputs, share);
  } catch (...) {
    device_.finish();
    throw;
  }
}

}  // namespace covenant::cuda
