// Requests, outputs and token callbacks of generate and replay.
#pragma once

#include <napi.h>

#include "adapter.h"
#include "jobs.h"

namespace covenant_node {

// Reads {seed, dims} of options.fingerprint; false when there is none.
bool fingerprint_of(const Napi::Object& options, cov_fingerprint_options& fingerprint);

// The cov_weight_type of options.weights; COV_WEIGHTS_F32 where none is given.
int32_t weights_of(const Napi::Object& options);

// A request; its pointers are those of the caller's arrays.
cov_generate_request request_of(const Napi::Object& object);

// generate(requests, {fingerprint?, topCount, maxBatch, weights?, cancel: Int32Array(1), onToken?},
//          outputs)
//   -> Promise<{tokenCount, stopped}[]>
// onToken(request, index, token, logProb) is called on the JavaScript thread, in order, before the
// promise settles.
void prepare_generate(const Napi::CallbackInfo& info, const ModelHandle& of, Job& job);

// replay(requests, {fingerprint?, weights?, cancel: Int32Array(1)}, outputs) -> Promise<void>
void prepare_replay(const Napi::CallbackInfo& info, const ModelHandle& of, Job& job);

}  // namespace covenant_node
