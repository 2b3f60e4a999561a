// Projections of activations into a subspace: jobs of the stateless engine thread.
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bindings.h"
#include "convert.h"
#include "covenant/activation.h"
#include "stateless.h"

namespace covenant_node {
namespace {

// A projection, its tokens, and the job that uses them.
struct Call {
  std::unique_ptr<Job> job;
  cov_projection projection{};
  int32_t threads = 0;
  int32_t rows = 0;
  std::vector<int32_t> tokens;  // copied: they must not change between their check and their use

  explicit Call(const Napi::CallbackInfo& info) : job(stateless_job(info.Env())) {}
};

// basis of (width, rank): its width.
int32_t width_of(const View<float>& basis, int32_t rank) {
  const auto columns = static_cast<uint64_t>(rank);
  const uint64_t width = basis.length / columns;
  if (width < columns || basis.length % columns != 0 || width > COV_ACTIVATION_WIDTH_MAX)
    throw invalid(basis.value.Env(),
                  "basis must have width * rank elements, the width from rank to 2^20");
  return static_cast<int32_t>(width);
}

// info[0] is {basis, table?, rank, threads?}; `first` has rows of `first_is_wide ? width : rank`.
Call call_of(const Napi::CallbackInfo& info, const View<float>& first, bool first_is_wide,
             const Napi::Value& tokens_value) {
  const Napi::Env env = info.Env();
  Call call(info);
  cov_projection& p = call.projection;
  const Napi::Object object = object_of(info[0], "projection");
  p.rank = integer(object, "rank", 1, COV_ACTIVATION_WIDTH_MAX);
  const View<float> basis = float32(object.Get("basis"), "basis");
  p.width = width_of(basis, p.rank);
  p.basis = basis.data;
  call.job->pin(basis.value);
  call.threads = threads_of(object);
  const uint64_t columns = static_cast<uint64_t>(first_is_wide ? p.width : p.rank);
  const uint64_t rows = first.length / columns;
  if (first.length % columns != 0 || rows > INT32_MAX)
    throw invalid(env, "values must be whole rows");
  call.rows = static_cast<int32_t>(rows);
  const View<float> table = optional_float32(object.Get("table"), "table");
  if (table.value.IsEmpty()) return call;
  const auto width = static_cast<uint64_t>(p.width);
  if (table.length == 0 || table.length % width != 0 || table.length / width > INT32_MAX)
    throw invalid(env, "table must have vocab * width elements");
  p.table = table.data;
  p.vocab = static_cast<int32_t>(table.length / width);
  call.job->pin(table.value);
  const View<int32_t> tokens = int32(tokens_value, "tokens");
  if (tokens.length != rows) throw invalid(env, "there must be one token for each row");
  call.tokens.assign(tokens.data, tokens.data + tokens.length);
  return call;
}

// The rows of `view` have `columns` values.
float* rows_of(const Call& call, const View<float>& view, int32_t columns, const char* name) {
  const auto wanted = static_cast<uint64_t>(call.rows) * static_cast<uint64_t>(columns);
  if (view.length != wanted)
    throw invalid(view.value.Env(), std::string(name) + " must have " + std::to_string(wanted) +
                                        " elements");
  call.job->pin(view.value);
  return view.data;
}

// A buffer of (height, columns) that is added to, or null when none is wanted.
float* gradient_of(const Call& call, const Napi::Object& object, const char* name, int32_t columns,
                   int32_t height) {
  const View<float> view = optional_float32(object.Get(name), name);
  if (view.value.IsEmpty()) return nullptr;
  const auto wanted = static_cast<uint64_t>(height) * static_cast<uint64_t>(columns);
  if (view.length != wanted)
    throw invalid(object.Env(), std::string(name) + " must have " + std::to_string(wanted) +
                                    " elements");
  call.job->pin(view.value);
  return view.data;
}

// ({basis, table?, rank, threads?}, from, tokens?, to) -> Promise<void>
Napi::Value project(const Napi::CallbackInfo& info, bool encode) {
  const View<float> from = float32(info[1], encode ? "x" : "z");
  Call call = call_of(info, from, encode, info[2]);
  const cov_projection& p = call.projection;
  call.job->pin(from.value);
  float* const to = rows_of(call, float32(info[3], encode ? "z" : "y"), encode ? p.rank : p.width,
                            encode ? "z" : "y");
  auto job = std::move(call.job);
  job->run = [p = call.projection, threads = call.threads, rows = call.rows, from = from.data, to,
              tokens = std::move(call.tokens), encode] {
    return (encode ? cov_projection_encode : cov_projection_decode)(
        &p, from, p.table == nullptr ? nullptr : tokens.data(), rows, threads, to);
  };
  return submit_stateless(info.Env(), std::move(job));
}

Napi::Value encode(const Napi::CallbackInfo& info) { return project(info, true); }
Napi::Value decode(const Napi::CallbackInfo& info) { return project(info, false); }

// ({basis, table?, rank, threads?}, {dz, x, dx} or {dy, z, dz} with basisGradient? and
// tableGradient?, tokens?) -> Promise<void>
Napi::Value backward(const Napi::CallbackInfo& info, bool of_encode) {
  const char* const names[3] = {of_encode ? "dz" : "dy", of_encode ? "x" : "z",
                                of_encode ? "dx" : "dz"};
  const Napi::Object object = object_of(info[1], "gradients");
  const View<float> given = float32(object.Get(names[0]), names[0]);
  Call call = call_of(info, given, !of_encode, info[2]);
  const cov_projection& p = call.projection;
  call.job->pin(given.value);
  const int32_t other = of_encode ? p.width : p.rank;
  float* const input = rows_of(call, float32(object.Get(names[1]), names[1]), other, names[1]);
  float* const out = rows_of(call, float32(object.Get(names[2]), names[2]), other, names[2]);
  float* const basis = gradient_of(call, object, "basisGradient", p.rank, p.width);
  float* const table = p.table == nullptr
                           ? nullptr
                           : gradient_of(call, object, "tableGradient", p.width, p.vocab);
  auto job = std::move(call.job);
  job->run = [=, p = call.projection, threads = call.threads, rows = call.rows, given = given.data,
              tokens = std::move(call.tokens)] {
    return (of_encode ? cov_projection_encode_backward : cov_projection_decode_backward)(
        &p, given, input, p.table == nullptr ? nullptr : tokens.data(), rows, threads, out, basis,
        table);
  };
  return submit_stateless(info.Env(), std::move(job));
}

Napi::Value encode_backward(const Napi::CallbackInfo& info) { return backward(info, true); }
Napi::Value decode_backward(const Napi::CallbackInfo& info) { return backward(info, false); }

// (seed: bigint, rank, basis) -> Promise<void>
Napi::Value random_basis(const Napi::CallbackInfo& info) {
  const uint64_t seed = seed_number_of(info[0], "seed");
  const int32_t rank = integer_value(info[1], "rank", 1, COV_ACTIVATION_WIDTH_MAX);
  const View<float> basis = float32(info[2], "basis");
  const int32_t width = width_of(basis, rank);
  auto job = std::make_unique<Job>(info.Env(), addon_data(info.Env()).mailbox);
  job->pin(basis.value);
  job->run = [=, basis = basis.data] {
    return cov_projection_random_basis(seed, width, rank, basis);
  };
  return submit_stateless(info.Env(), std::move(job));
}

// (rank, {rate, decay}, basis, gradient, momentum) -> Promise<void>
Napi::Value step(const Napi::CallbackInfo& info) {
  const int32_t rank = integer_value(info[0], "rank", 1, COV_ACTIVATION_WIDTH_MAX);
  const Napi::Object options = object_of(info[1], "options");
  const auto rate = static_cast<float>(number(options, "rate"));
  const auto decay = static_cast<float>(number(options, "decay"));
  const View<float> basis = float32(info[2], "basis"), gradient = float32(info[3], "gradient"),
                    momentum = float32(info[4], "momentum");
  const int32_t width = width_of(basis, rank);
  if (gradient.length != basis.length || momentum.length != basis.length)
    throw invalid(info.Env(), "gradient and momentum must be as long as the basis");
  auto job = std::make_unique<Job>(info.Env(), addon_data(info.Env()).mailbox);
  for (const View<float>* view : {&basis, &gradient, &momentum}) job->pin(view->value);
  job->run = [=, basis = basis.data, gradient = gradient.data, momentum = momentum.data] {
    return cov_projection_step(basis, gradient, momentum, width, rank, rate, decay);
  };
  return submit_stateless(info.Env(), std::move(job));
}

}  // namespace

void export_projection(Napi::Env env, Napi::Object exports) {
  const auto add = [&](const char* name, Napi::Value (*call)(const Napi::CallbackInfo&)) {
    exports.Set(name, Napi::Function::New(env, call, name));
  };
  add("projectionBasis", random_basis);
  add("projectionEncode", encode);
  add("projectionDecode", decode);
  add("projectionEncodeBackward", encode_backward);
  add("projectionDecodeBackward", decode_backward);
  add("projectionStep", step);
}

}  // namespace covenant_node
