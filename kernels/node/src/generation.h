// Requests, outputs and token callbacks of generate and replay.
#pragma once

#include <napi.h>

#include "jobs.h"
#include "model_engine.h"

namespace covenant_node {

// generate(requests, {fingerprint?, topCount, maxBatch, cancel: Int32Array(1), onToken?}, outputs)
//   -> Promise<{tokenCount, stopped}[]>
// onToken(request, index, token, logProb) is called on the JavaScript thread, in order, before the
// promise settles.
void prepare_generate(const Napi::CallbackInfo& info, ModelEngine& engine, Job& job);

// replay(requests, {fingerprint?, cancel: Int32Array(1)}, outputs) -> Promise<void>
void prepare_replay(const Napi::CallbackInfo& info, ModelEngine& engine, Job& job);

}  // namespace covenant_node
