#include "stateless.h"

#include <utility>

#include "convert.h"

namespace covenant_node {

Tensors shared_tensors(const Napi::Value& value) {
  return std::make_shared<const std::vector<cov_tensor_info>>(tensors_of(value));
}

int32_t count_of(const Tensors& tensors) { return static_cast<int32_t>(tensors->size()); }

int32_t threads_of(const Napi::Object& options) {
  return integer_or(options, "threads", 1, 256, 0);
}

std::unique_ptr<Job> stateless_job(Napi::Env env) {
  return std::make_unique<Job>(env, addon_data(env).mailbox);
}

Napi::Value submit_stateless(Napi::Env env, std::unique_ptr<Job> job) {
  return addon_data(env).stateless->submit(std::move(job));
}

Napi::Value MadeBytes::take(Napi::Env env) {
  const cov_bytes bytes = std::exchange(bytes_, cov_bytes{});
  const Napi::ArrayBuffer buffer = adopt(
      env, bytes.data, bytes.length,
      [bytes] {
        cov_bytes mine = bytes;
        cov_bytes_free(&mine);
      },
      true);
  return Napi::Uint8Array::New(env, bytes.length, buffer, 0);
}

}  // namespace covenant_node
