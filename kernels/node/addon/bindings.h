// The calls that the addon exports, grouped by what they work on.
#pragma once

#include <napi.h>

namespace covenant_node {

// Shapes, tensor tables, initial parameters, hashes.
void export_tables(Napi::Env env, Napi::Object exports);

// compress, decode, aggregate, applyMerged, applyUpdate, stateRoot: jobs of the stateless engine
// thread.
void export_sparse(Napi::Env env, Napi::Object exports);

// packUpdate, unpackUpdate: jobs of the stateless engine thread.
void export_packed(Napi::Env env, Napi::Object exports);

// encodeDelta, applyDelta, activations: jobs of the stateless engine thread.
void export_codec(Napi::Env env, Napi::Object exports);

// Projections of activations: jobs of the stateless engine thread.
void export_projection(Napi::Env env, Napi::Object exports);

// CUDA devices.
void export_devices(Napi::Env env, Napi::Object exports);

// The class Model, which createModel and createDeviceModel make.
void export_model(Napi::Env env, Napi::Object exports);
void export_create_model(Napi::Env env, Napi::Object exports);

// The class Generator, which Model.createGenerator makes.
void export_generator(Napi::Env env, Napi::Object exports);

}  // namespace covenant_node
