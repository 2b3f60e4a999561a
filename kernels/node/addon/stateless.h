// What the calls without a model share: jobs of the stateless engine thread, the tensor table and
// thread count they take, and the bytes that they give back.
#pragma once

#include <napi.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "covenant/sparse.h"
#include "jobs.h"

namespace covenant_node {

// A tensor table that a job keeps.
using Tensors = std::shared_ptr<const std::vector<cov_tensor_info>>;
Tensors shared_tensors(const Napi::Value& value);
int32_t count_of(const Tensors& tensors);

// `threads` of the options; 0, which lets the library choose, where there is none.
int32_t threads_of(const Napi::Object& options);

// A job of the stateless engine thread, and the promise of its result.
std::unique_ptr<Job> stateless_job(Napi::Env env);
Napi::Value submit_stateless(Napi::Env env, std::unique_ptr<Job> job);

// Bytes that a C call makes. They are JavaScript's once taken, else freed with this.
class MadeBytes {
 public:
  MadeBytes() = default;
  MadeBytes(const MadeBytes&) = delete;
  MadeBytes& operator=(const MadeBytes&) = delete;
  ~MadeBytes() { cov_bytes_free(&bytes_); }
  cov_bytes* out() { return &bytes_; }
  // A Uint8Array over them, without a copy where the runtime allows it.
  Napi::Value take(Napi::Env env);

 private:
  cov_bytes bytes_{};
};

}  // namespace covenant_node
