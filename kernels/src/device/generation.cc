// Generation and replay on devices: checks of arguments, then the backend's functions.
#include "device/training.h"
#include "engine/model.h"
#include "generate/call.h"
#include "generate/replay.h"

namespace covenant::device {

cov_status generate(TrainingModel* model, const cov_generate_request* requests, int32_t request_count,
                    const cov_generate_options* options, cov_generate_output* outputs) {
  cov_status status =
      check_generate_options(model != nullptr, requests, request_count, options, outputs);
  if (status.code != COV_OK) return status;
  status = guarded([&] {
    check_generate_requests(model->shape, requests, request_count, *options, outputs);
    return cov_ok();
  });
  if (status.code != COV_OK) return status;
  return model->training->generate(model->handle, requests, request_count, options, outputs);
}

cov_status replay(TrainingModel* model, const cov_replay_request* requests, int32_t request_count,
                  const cov_replay_options* options, const cov_replay_output* outputs) {
  cov_status status =
      check_replay_options(model != nullptr, requests, request_count, options, outputs);
  if (status.code != COV_OK) return status;
  status = guarded([&] {
    check_replay_requests(model->shape, requests, request_count);
    return cov_ok();
  });
  if (status.code != COV_OK) return status;
  return model->training->replay(model->handle, requests, request_count, options, outputs);
}

}  // namespace covenant::device
