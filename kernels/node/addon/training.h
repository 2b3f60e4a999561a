// Batches, buffers and steps: the calls that training is made of, each a job of the model's engine
// thread.
#pragma once

#include <napi.h>

#include "adapter.h"
#include "jobs.h"

namespace covenant_node {

// read(which, offset, values) -> Promise<void>: floats of a buffer, from the offset on, to `values`
void prepare_read(const Napi::CallbackInfo& info, const ModelHandle& of, Job& job);
// write(which, offset, values) -> Promise<void>: the other way
void prepare_write(const Napi::CallbackInfo& info, const ModelHandle& of, Job& job);

// forward(batch, {keepActivations, topCount, temperature}, {logProbs, entropy, topTokens?,
//         topLogProbs?}) -> Promise<void>
void prepare_forward(const Napi::CallbackInfo& info, const ModelHandle& of, Job& job);
// backward(coefficients) -> Promise<void>
void prepare_backward(const Napi::CallbackInfo& info, const ModelHandle& of, Job& job);
// optimizerStep(optimizer) -> Promise<{gradientNorm}>
void prepare_optimizer_step(const Napi::CallbackInfo& info, const ModelHandle& of, Job& job);
// trainStep(batch, optimizer, {cancel?: Int32Array(1)}) -> Promise<{loss, gradientNorm}>
void prepare_train_step(const Napi::CallbackInfo& info, const ModelHandle& of, Job& job);

}  // namespace covenant_node
