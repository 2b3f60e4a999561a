#include "convert.h"

#include "covenant/delta.h"

#include <cmath>
#include <cstring>
#include <memory>

namespace covenant_node {

Napi::Error error_with_code(Napi::Env env, const char* code, const std::string& sentence) {
  Napi::Error error = Napi::Error::New(env, sentence);
  error.Set("code", Napi::String::New(env, code));
  return error;
}

Napi::Error error_of(Napi::Env env, const cov_status& status) {
  const std::string name = cov_delta_code_name(status.code);
  const bool own = name.rfind("SPARSE_", 0) == 0 || name.rfind("DELTA_", 0) == 0;
  const std::string prefix = own ? "COV_" : "COV_KERNELS_";
  return error_with_code(env, (prefix + name).c_str(), status.message);
}

Napi::Error invalid(Napi::Env env, const std::string& sentence) {
  return error_with_code(env, "COV_KERNELS_INVALID_ARGUMENT", sentence);
}

void throw_if_failed(Napi::Env env, const cov_status& status) {
  if (status.code != COV_OK) throw error_of(env, status);
}

namespace {

void check_memory(const Napi::Value& buffer, const char* name) {
  const Napi::Env env = buffer.Env();
  if (!buffer.IsArrayBuffer())
    throw invalid(env, std::string(name) + " must not lie in a SharedArrayBuffer");
  bool detached = false;
  if (napi_is_detached_arraybuffer(env, buffer, &detached) == napi_ok && detached)
    throw invalid(env, std::string(name) + " lies in an ArrayBuffer that was transferred away");
  if (buffer.As<Napi::Object>().Get("resizable").ToBoolean())
    throw invalid(env, std::string(name) + " must not lie in a resizable ArrayBuffer");
}

template <typename T>
View<T> view_of(const Napi::Value& value, const char* name, napi_typedarray_type type,
                const char* type_name) {
  const Napi::Env env = value.Env();
  if (value.IsTypedArray()) {
    napi_typedarray_type actual = napi_int8_array;
    size_t length = 0;
    void* data = nullptr;
    napi_value buffer = nullptr;
    if (napi_get_typedarray_info(env, value, &actual, &length, &data, &buffer, nullptr) ==
            napi_ok &&
        actual == type) {
      check_memory(Napi::Value(env, buffer), name);
      return {static_cast<T*>(data), length, value};
    }
  }
  const char* article = type_name[0] == 'I' ? " must be an " : " must be a ";
  throw invalid(env, name + (article + std::string(type_name)));
}

// True for undefined and null.
bool absent(const Napi::Value& value) { return value.IsUndefined() || value.IsNull(); }

}  // namespace

View<float> float32(const Napi::Value& value, const char* name) {
  return view_of<float>(value, name, napi_float32_array, "Float32Array");
}
View<float> optional_float32(const Napi::Value& value, const char* name) {
  return absent(value) ? View<float>{} : float32(value, name);
}
View<int32_t> int32(const Napi::Value& value, const char* name) {
  return view_of<int32_t>(value, name, napi_int32_array, "Int32Array");
}
View<int32_t> optional_int32(const Napi::Value& value, const char* name) {
  return absent(value) ? View<int32_t>{} : int32(value, name);
}
View<int8_t> optional_int8(const Napi::Value& value, const char* name) {
  return absent(value) ? View<int8_t>{}
                       : view_of<int8_t>(value, name, napi_int8_array, "Int8Array");
}
View<uint8_t> uint8(const Napi::Value& value, const char* name) {
  return view_of<uint8_t>(value, name, napi_uint8_array, "Uint8Array");
}

double number(const Napi::Object& object, const char* name) {
  const Napi::Value value = object.Get(name);
  if (!value.IsNumber()) throw invalid(object.Env(), std::string(name) + " must be a number");
  return value.As<Napi::Number>().DoubleValue();
}

int32_t integer_value(const Napi::Value& value, const char* name, int32_t minimum,
                      int32_t maximum) {
  if (!value.IsNumber()) throw invalid(value.Env(), std::string(name) + " must be a number");
  const double given = value.As<Napi::Number>().DoubleValue();
  if (!(given >= minimum && given <= maximum) || given != std::floor(given)) {
    throw invalid(value.Env(), std::string(name) + " must be an integer from " +
                                   std::to_string(minimum) + " to " + std::to_string(maximum));
  }
  return static_cast<int32_t>(given);
}

int32_t integer(const Napi::Object& object, const char* name, int32_t minimum, int32_t maximum) {
  return integer_value(object.Get(name), name, minimum, maximum);
}

int32_t integer_or(const Napi::Object& object, const char* name, int32_t minimum, int32_t maximum,
                   int32_t otherwise) {
  return absent(object.Get(name)) ? otherwise : integer(object, name, minimum, maximum);
}

uint64_t count_of(const Napi::Value& value, const char* name) {
  const double count = value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : -1;
  if (!(count >= 0 && count <= 9007199254740991.0) || count != std::floor(count))
    throw invalid(value.Env(), std::string(name) + " must be a count");
  return static_cast<uint64_t>(count);
}

uint64_t count_or(const Napi::Object& object, const char* name, uint64_t otherwise) {
  const Napi::Value value = object.Get(name);
  return value.IsUndefined() ? otherwise : count_of(value, name);
}

Napi::Object object_of(const Napi::Value& value, const char* name) {
  if (!value.IsObject()) throw invalid(value.Env(), std::string(name) + " must be an object");
  return value.As<Napi::Object>();
}

Napi::Array array_of(const Napi::Value& value, const char* name) {
  if (!value.IsArray()) throw invalid(value.Env(), std::string(name) + " must be an array");
  return value.As<Napi::Array>();
}

uint64_t seed_number_of(const Napi::Value& value, const char* name) {
  if (!value.IsBigInt()) throw invalid(value.Env(), std::string(name) + " must be a bigint");
  bool lossless = false;
  const uint64_t seed = value.As<Napi::BigInt>().Uint64Value(&lossless);
  if (!lossless)
    throw invalid(value.Env(), std::string(name) + " must be from 0 to 2^64 - 1");
  return seed;
}

void seed_of(const Napi::Value& value, const char* name, uint8_t seed[32]) {
  const View<uint8_t> view = uint8(value, name);
  if (view.length != 32) throw invalid(value.Env(), std::string(name) + " must have 32 bytes");
  std::memcpy(seed, view.data, 32);
}

cov_model_shape shape_of(const Napi::Value& value) {
  const Napi::Object object = object_of(value, "shape");
  cov_model_shape shape{};
  shape.vocab_size = integer(object, "vocabSize", 1, INT32_MAX);
  shape.hidden_size = integer(object, "hiddenSize", 1, INT32_MAX);
  shape.intermediate_size = integer(object, "intermediateSize", 1, INT32_MAX);
  shape.layer_count = integer(object, "layerCount", 1, INT32_MAX);
  shape.head_count = integer(object, "headCount", 1, INT32_MAX);
  shape.kv_head_count = integer(object, "kvHeadCount", 1, INT32_MAX);
  shape.max_positions = integer(object, "maxPositions", 1, INT32_MAX);
  shape.rope_theta = number(object, "ropeTheta");
  shape.rms_norm_eps = number(object, "rmsNormEps");
  const Napi::Value tie = object.Get("tieWordEmbeddings");
  if (!tie.IsBoolean()) throw invalid(value.Env(), "tieWordEmbeddings must be true or false");
  shape.tie_word_embeddings = tie.As<Napi::Boolean>().Value() ? 1 : 0;
  return shape;
}

namespace {

cov_tensor_info tensor_of(const Napi::Object& object) {
  cov_tensor_info tensor{};
  const Napi::Value name = object.Get("name");
  const std::string text = name.IsString() ? name.As<Napi::String>().Utf8Value() : "";
  if (text.empty() || text.size() >= sizeof tensor.name) {
    throw invalid(object.Env(), "a tensor's name must have 1 to " +
                                    std::to_string(sizeof tensor.name - 1) + " bytes");
  }
  std::memcpy(tensor.name, text.c_str(), text.size() + 1);
  const Napi::Array shape = array_of(object.Get("shape"), "shape of a tensor");
  if (shape.Length() < 1 || shape.Length() > 2) {
    throw invalid(object.Env(), "tensor " + text + " has " + std::to_string(shape.Length()) +
                                    " dimensions; 1 or 2 are possible");
  }
  tensor.rank = static_cast<int32_t>(shape.Length());
  tensor.dims[1] = 1;
  for (uint32_t d = 0; d < shape.Length(); ++d)
    tensor.dims[d] = static_cast<int64_t>(count_of(shape.Get(d), "shape of a tensor"));
  tensor.offset = count_of(object.Get("offset"), "offset of a tensor");
  tensor.length = count_of(object.Get("length"), "length of a tensor");
  const auto product = static_cast<unsigned __int128>(tensor.dims[0]) *
                       static_cast<unsigned __int128>(tensor.dims[1]);
  if (product != tensor.length)
    throw invalid(object.Env(), "tensor " + text + ": length is not the product of shape");
  return tensor;
}

}  // namespace

std::vector<cov_tensor_info> tensors_of(const Napi::Value& value) {
  const Napi::Array array = array_of(value, "tensors");
  constexpr uint32_t tensors_max = 1 << 20;
  if (array.Length() > tensors_max) throw invalid(value.Env(), "there are more than 2^20 tensors");
  std::vector<cov_tensor_info> tensors;
  tensors.reserve(array.Length());
  for (uint32_t t = 0; t < array.Length(); ++t) {
    const Napi::HandleScope scope(value.Env());
    tensors.push_back(tensor_of(object_of(array.Get(t), "a tensor")));
  }
  return tensors;
}

Napi::Array tensors_to_js(Napi::Env env, const std::vector<cov_tensor_info>& tensors) {
  Napi::Array array = Napi::Array::New(env, tensors.size());
  for (uint32_t t = 0; t < tensors.size(); ++t) {
    const cov_tensor_info& tensor = tensors[t];
    Napi::Array shape = Napi::Array::New(env, static_cast<size_t>(tensor.rank));
    for (int32_t d = 0; d < tensor.rank; ++d) {
      shape.Set(static_cast<uint32_t>(d), static_cast<double>(tensor.dims[d]));
    }
    Napi::Object object = Napi::Object::New(env);
    object.Set("name", tensor.name);
    object.Set("shape", shape);
    object.Set("offset", static_cast<double>(tensor.offset));
    object.Set("length", static_cast<double>(tensor.length));
    array.Set(t, object);
  }
  return array;
}

cov_sparse_format format_of(const Napi::Object& object) {
  return {integer(object, "mode", 1, 2), integer(object, "keepPerChunk", 1, COV_SPARSE_KEEP_MAX)};
}

cov_adamw_options adamw_of(const Napi::Value& value) {
  const Napi::Object object = object_of(value, "optimizer");
  const auto single = [&](const char* name) { return static_cast<float>(number(object, name)); };
  cov_adamw_options options{};
  options.learning_rate = single("learningRate");
  options.beta1 = single("beta1");
  options.beta2 = single("beta2");
  options.epsilon = single("epsilon");
  options.weight_decay = single("weightDecay");
  options.gradient_clip = single("gradientClip");
  return options;
}

Napi::ArrayBuffer adopt(Napi::Env env, void* data, uint64_t bytes, std::function<void()> release,
                        bool copy_allowed) {
  auto hint = std::make_unique<std::function<void()>>(std::move(release));
  napi_value result = nullptr;
  const napi_status status = napi_create_external_arraybuffer(
      env, data, bytes,
      [](napi_env, void*, void* pointer) {
        const std::unique_ptr<std::function<void()>> finish(
            static_cast<std::function<void()>*>(pointer));
        (*finish)();
      },
      hint.get(), &result);
  if (status == napi_ok) {
    (void)hint.release();
    return Napi::ArrayBuffer(env, result);
  }
  if (!copy_allowed) {
    (*hint)();
    throw error_with_code(env, "COV_KERNELS_UNSUPPORTED",
                          "this runtime allows no views of native memory");
  }
  Napi::ArrayBuffer copy = Napi::ArrayBuffer::New(env, bytes);
  std::memcpy(copy.Data(), data, bytes);
  (*hint)();
  return copy;
}

}  // namespace covenant_node
