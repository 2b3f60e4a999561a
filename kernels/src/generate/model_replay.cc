// cov_model_replay: a replay over a model on the CPU.
#include "generate/decoder.h"
#include "generate/replay.h"

namespace covenant {
namespace {

constexpr int64_t kReplayRows = 512;

}  // namespace
}  // namespace covenant

extern "C" cov_status cov_model_replay(cov_model* model, const cov_replay_request* requests,
                                       int32_t request_count, const cov_replay_options* options,
                                       const cov_replay_output* outputs) {
  using namespace covenant;
  const cov_status status =
      check_replay_options(model != nullptr, requests, request_count, options, outputs);
  if (status.code != COV_OK) return status;
  return guarded([&] {
    check_replay_requests(model->shape, requests, request_count);
    const GenerationWeights& weights = packed_generation_weights(*model, options->weights);
    const Layout& l = model->layout;
    PageMemory pages(model->memory, l.attention, l.layers, weights.type() != COV_WEIGHTS_F32);
    Decoder decoder(*model, weights, pages);
    const ReplayMachine machine = {model->shape, model->pool, decoder, pages, kReplayRows};
    replay_all(machine, requests, request_count, *options, outputs, {});
    return cov_ok();
  });
}
