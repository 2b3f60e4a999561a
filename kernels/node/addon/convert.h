// Everything that turns JavaScript values into C values and back, and statuses into errors. The
// files that bind calls use only these, so that a reader of theirs sees what is called and nothing
// else.
#pragma once

#include <napi.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "covenant/model.h"
#include "covenant/sparse.h"

namespace covenant_node {

// An Error with `code` = "COV_KERNELS_<name>", or "COV_SPARSE_<name>" and "COV_DELTA_<name>" for
// reasons of those formats.
Napi::Error error_of(Napi::Env env, const cov_status& status);

// COV_KERNELS_INVALID_ARGUMENT with a sentence that names the argument.
Napi::Error invalid(Napi::Env env, const std::string& sentence);

// An error with a code that only the binding has, e.g. COV_KERNELS_CLOSED.
Napi::Error error_with_code(Napi::Env env, const char* code, const std::string& sentence);

void throw_if_failed(Napi::Env env, const cov_status& status);

// A typed array of the caller: pinned by the job that uses it, never copied.
template <typename T>
struct View {
  T* data = nullptr;
  uint64_t length = 0;
  Napi::Value value;  // valid only during the call
};

// Each throws an invalid-argument error naming `name` when the value has another type, or memory that
// others may change or take away meanwhile: shared, resizable or detached. The optional forms give an
// empty view for undefined.
View<float> float32(const Napi::Value& value, const char* name);
View<float> optional_float32(const Napi::Value& value, const char* name);
View<int32_t> int32(const Napi::Value& value, const char* name);
View<int32_t> optional_int32(const Napi::Value& value, const char* name);
View<int8_t> optional_int8(const Napi::Value& value, const char* name);
View<uint8_t> uint8(const Napi::Value& value, const char* name);

double number(const Napi::Object& object, const char* name);
// An integer within [minimum, maximum].
int32_t integer(const Napi::Object& object, const char* name, int32_t minimum, int32_t maximum);
int32_t integer_value(const Napi::Value& value, const char* name, int32_t minimum,
                      int32_t maximum);
int32_t integer_or(const Napi::Object& object, const char* name, int32_t minimum, int32_t maximum,
                   int32_t otherwise);
// A count up to 2^53 - 1, exact in a double.
uint64_t count_of(const Napi::Value& value, const char* name);
uint64_t count_or(const Napi::Object& object, const char* name, uint64_t otherwise);
Napi::Object object_of(const Napi::Value& value, const char* name);
Napi::Array array_of(const Napi::Value& value, const char* name);

// A seed that is a bigint of 64 bits.
uint64_t seed_number_of(const Napi::Value& value, const char* name);

// Reads a 32-byte seed.
void seed_of(const Napi::Value& value, const char* name, uint8_t seed[32]);

cov_model_shape shape_of(const Napi::Value& value);
std::vector<cov_tensor_info> tensors_of(const Napi::Value& value);
Napi::Array tensors_to_js(Napi::Env env, const std::vector<cov_tensor_info>& tensors);
cov_sparse_format format_of(const Napi::Object& object);
cov_adamw_options adamw_of(const Napi::Value& value);

// An ArrayBuffer over memory that `release` frees once no view of it is left; a copy where the
// runtime allows no such buffers, and then `release` runs at once. `copy_allowed` false: throws
// instead (a live view cannot be a copy).
Napi::ArrayBuffer adopt(Napi::Env env, void* data, uint64_t bytes, std::function<void()> release,
                        bool copy_allowed);

}  // namespace covenant_node
