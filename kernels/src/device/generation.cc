// Generation and replay on devices: checks of arguments, then the backend's functions.
#include "device/training.h"
#include "generate/generator.h"
#include "generate/replay.h"

namespace covenant::device {

cov_status generate(TrainingModel* model, const cov_generate_request* requests, int32_t request_count,
                    const cov_generate_options* options, cov_generate_output* outputs) {
  if (model == nullptr || options == nullptr || request_count < 0 ||
      (request_count > 0 && (requests == nullptr || outputs == nullptr)))
    return cov_error(COV_INVALID_ARGUMENT, "model, requests, options and outputs must be given");
  if (options->fingerprint != nullptr &&
      (options->fingerprint->dims < 1 || options->fingerprint->dims > 64))
    return cov_error(COV_INVALID_ARGUMENT, "fingerprint dims must be in [1, 64]");
  if (options->weights != COV_WEIGHTS_F32)
    return cov_error(COV_UNSUPPORTED, "on a device, weights have the type of the model");
  if (options->max_batch < 0 || options->max_batch > 1024)
    return cov_error(COV_INVALID_ARGUMENT, "max_batch is %d, must be in [0, 1024]",
                     options->max_batch);
  const cov_status status = covenant::guarded([&] {
    for (int32_t i = 0; i < request_count; ++i) {
      covenant::check_request(model->shape, requests[i], options->top_count, i);
      if (outputs[i].tokens == nullptr)
        return cov_error(COV_INVALID_ARGUMENT, "request %d needs a result buffer", i);
      outputs[i].token_count = 0;
      outputs[i].finish_reason = COV_FINISH_LENGTH;
    }
    return cov_ok();
  });
  if (status.code != COV_OK) return status;
  return model->training->generate(model->handle, requests, request_count, options, outputs);
}

cov_status replay(TrainingModel* model, const cov_replay_request* requests, int32_t request_count,
                  const cov_replay_options* options, const cov_replay_output* outputs) {
  cov_status status = covenant::check_replay_options(model != nullptr, requests, request_count,
                                                     options, outputs);
  if (status.code != COV_OK) return status;
  if (options->weights != COV_WEIGHTS_F32)
    return cov_error(COV_UNSUPPORTED, "on a device, weights have the type of the model");
  status = covenant::guarded([&] {
    covenant::check_replay_requests(model->shape, requests, request_count);
    return cov_ok();
  });
  if (status.code != COV_OK) return status;
  return model->training->replay(model->handle, requests, request_count, options, outputs);
}

}  // namespace covenant::device
