// A generator on the engine thread of its model: requests come in from JavaScript at any time,
// steps run in slices between the model's other jobs.
#pragma once

#include <napi.h>

#include <memory>

#include "adapter.h"
#include "jobs.h"

namespace covenant_node {

// createGenerator({weights?, maxBatch, stepRows, pageLimit, requestLimit}) -> Promise<Generator>, with
//   submit(key, request, {fingerprint?, topCount})  queues; what is wrong with it comes as an event
//   cancel(key)                                     no event of the request follows a later slice
//   drive(onEvents) -> Promise<boolean>             one slice of steps; whether requests are left
//   refresh() -> Promise<void>                      a new snapshot of the parameters
//   state() -> object as of the last slice
//   close() -> Promise<void>
// onEvents gets an array of {key, index, token, logProb, finish, fingerprint?, topTokens?,
// topLogProbs?, error?} after each step.
void prepare_generator(const Napi::CallbackInfo& info, const ModelHandle& of, Job& job);

}  // namespace covenant_node
