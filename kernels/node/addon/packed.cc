// The packed form of updates: jobs of the stateless engine thread.
#include <memory>
#include <utility>

#include "bindings.h"
#include "convert.h"
#include "covenant/sparse.h"
#include "stateless.h"

namespace covenant_node {
namespace {

// What both directions take: (bytes, tensors, {keepPerChunk, mode, threads?}).
struct Input {
  View<uint8_t> bytes;
  Tensors tensors;
  cov_sparse_format format;
  int32_t threads;

  Input(const Napi::CallbackInfo& info, const char* name)
      : bytes(uint8(info[0], name)),
        tensors(shared_tensors(info[1])) {
    const Napi::Object options = object_of(info[2], "options");
    format = format_of(options);
    threads = threads_of(options);
  }
};

// (body, tensors, options) -> Promise<Uint8Array>
Napi::Value pack_update(const Napi::CallbackInfo& info) {
  const Input input(info, "body");
  const auto packed = std::make_shared<MadeBytes>();
  auto job = stateless_job(info.Env());
  job->pin(input.bytes.value);
  job->run = [=] {
    return cov_sparse_pack(input.bytes.data, input.bytes.length, input.tensors->data(),
                           count_of(input.tensors), input.format, input.threads, packed->out());
  };
  job->result = [packed](Napi::Env env) { return packed->take(env); };
  return submit_stateless(info.Env(), std::move(job));
}

// (packed, tensors, options, body: Uint8Array) -> Promise<void>
Napi::Value unpack_update(const Napi::CallbackInfo& info) {
  const Input input(info, "packed");
  const View<uint8_t> body = uint8(info[3], "body");
  auto job = stateless_job(info.Env());
  job->pin(input.bytes.value);
  job->pin(body.value);
  job->run = [=] {
    return cov_sparse_unpack(input.bytes.data, input.bytes.length, input.tensors->data(),
                             count_of(input.tensors), input.format, input.threads, body.data, body.length);
  };
  return submit_stateless(info.Env(), std::move(job));
}

}  // namespace

void export_packed(Napi::Env env, Napi::Object exports) {
  exports.Set("packUpdate", Napi::Function::New(env, pack_update, "packUpdate"));
  exports.Set("unpackUpdate", Napi::Function::New(env, unpack_update, "unpackUpdate"));
}

}  // namespace covenant_node
