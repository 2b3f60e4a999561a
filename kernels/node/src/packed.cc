// The packed form of updates: jobs of the stateless engine thread.
#include <memory>
#include <utility>
#include <vector>

#include "bindings.h"
#include "convert.h"
#include "covenant/sparse.h"
#include "jobs.h"

namespace covenant_node {
namespace {

// What both directions take: (bytes, tensors, {keepPerChunk, mode, threads?}).
struct Input {
  View<uint8_t> bytes;
  std::shared_ptr<const std::vector<cov_tensor_info>> tensors;
  cov_sparse_format format;
  int32_t threads;

  Input(const Napi::CallbackInfo& info, const char* name)
      : bytes(uint8(info[0], name)),
        tensors(std::make_shared<const std::vector<cov_tensor_info>>(tensors_of(info[1]))) {
    const Napi::Object options = object_of(info[2], "options");
    format = format_of(options);
    threads = integer_or(options, "threads", 1, 256, 0);
  }
  int32_t count() const { return static_cast<int32_t>(tensors->size()); }
};

std::unique_ptr<Job> new_job(Napi::Env env) {
  return std::make_unique<Job>(env, addon_data(env).mailbox);
}

// (body, tensors, options) -> Promise<Uint8Array>
Napi::Value pack_update(const Napi::CallbackInfo& info) {
  const Input input(info, "body");
  const auto packed = std::shared_ptr<cov_bytes>(new cov_bytes{}, [](cov_bytes* bytes) {
    cov_bytes_free(bytes);
    delete bytes;
  });
  auto job = new_job(info.Env());
  job->pin(input.bytes.value);
  job->run = [=] {
    return cov_sparse_pack(input.bytes.data, input.bytes.length, input.tensors->data(),
                           input.count(), input.format, input.threads, packed.get());
  };
  job->result = [packed](Napi::Env env) -> Napi::Value {
    const cov_bytes bytes = std::exchange(*packed, cov_bytes{});
    const Napi::ArrayBuffer buffer = adopt(
        env, bytes.data, bytes.length,
        [bytes] {
          cov_bytes mine = bytes;
          cov_bytes_free(&mine);
        },
        true);
    return Napi::Uint8Array::New(env, bytes.length, buffer, 0);
  };
  return addon_data(info.Env()).stateless->submit(std::move(job));
}

// (packed, tensors, options, body: Uint8Array) -> Promise<void>
Napi::Value unpack_update(const Napi::CallbackInfo& info) {
  const Input input(info, "packed");
  const View<uint8_t> body = uint8(info[3], "body");
  auto job = new_job(info.Env());
  job->pin(input.bytes.value);
  job->pin(body.value);
  job->run = [=] {
    return cov_sparse_unpack(input.bytes.data, input.bytes.length, input.tensors->data(),
                             input.count(), input.format, input.threads, body.data, body.length);
  };
  return addon_data(info.Env()).stateless->submit(std::move(job));
}

}  // namespace

void export_packed(Napi::Env env, Napi::Object exports) {
  exports.Set("packUpdate", Napi::Function::New(env, pack_update, "packUpdate"));
  exports.Set("unpackUpdate", Napi::Function::New(env, unpack_update, "unpackUpdate"));
}

}  // namespace covenant_node
