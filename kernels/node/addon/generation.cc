#include "generation.h"

#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "convert.h"

namespace covenant_node {

// Reads {seed, dims}; false when there is none.
bool fingerprint_of(const Napi::Object& options, cov_fingerprint_options& fingerprint) {
  const Napi::Value value = options.Get("fingerprint");
  if (value.IsUndefined()) return false;
  const Napi::Object object = object_of(value, "fingerprint");
  seed_of(object.Get("seed"), "seed of the fingerprint", fingerprint.seed);
  fingerprint.dims = integer(object, "dims", 1, 64);
  return true;
}

// The weight type; f32 where none is given.
int32_t weights_of(const Napi::Object& options) {
  const Napi::Value value = options.Get("weights");
  if (value.IsUndefined()) return COV_WEIGHTS_F32;
  const std::string name = value.IsString() ? value.As<Napi::String>().Utf8Value() : "";
  if (name == "f32") return COV_WEIGHTS_F32;
  if (name == "bf16") return COV_WEIGHTS_BF16;
  if (name == "int8") return COV_WEIGHTS_INT8;
  throw invalid(options.Env(), "weights must be f32, bf16 or int8");
}

cov_generate_request request_of(const Napi::Object& object) {
  const View<int32_t> prompt = int32(object.Get("prompt"), "prompt");
  const View<int32_t> stops = int32(object.Get("stopTokens"), "stopTokens");
  if (prompt.length < 1 || prompt.length > INT32_MAX)
    throw invalid(object.Env(), "prompt must have a token");
  if (stops.length > 64) throw invalid(object.Env(), "there can be 64 stopTokens");
  cov_generate_request request{};
  request.prompt = prompt.data;
  request.prompt_length = static_cast<int32_t>(prompt.length);
  request.max_new_tokens = integer(object, "maxNewTokens", 1, INT32_MAX);
  request.temperature = static_cast<float>(number(object, "temperature"));
  request.top_k = integer(object, "topK", 0, INT32_MAX);
  request.top_p = static_cast<float>(number(object, "topP"));
  request.stop_tokens = stops.data;
  request.stop_token_count = static_cast<int32_t>(stops.length);
  seed_of(object.Get("samplingSeed"), "samplingSeed", request.sampling_seed);
  return request;
}

namespace {

constexpr uint32_t kRequestsMax = 1 << 16;

// A token on its way to the callback. The job outlives it: its own message is sent later on the
// same way.
class TokenMessage : public Message {
 public:
  TokenMessage(Job& job, int32_t request, int32_t index, int32_t token, float log_prob)
      : job_(job), request_(request), index_(index), token_(token), log_prob_(log_prob) {}

  void deliver(Napi::Env env) override {
    // The TypeScript side catches what the user's callback throws, so that this call returns.
    job_.on_token.Call({Napi::Number::New(env, request_), Napi::Number::New(env, index_),
                        Napi::Number::New(env, token_),
                        Napi::Number::New(env, static_cast<double>(log_prob_))});
  }

 private:
  Job& job_;
  int32_t request_;
  int32_t index_;
  int32_t token_;
  float log_prob_;
};

void send_token(void* context, int32_t request, int32_t index, int32_t token, float log_prob) {
  Job& job = *static_cast<Job*>(context);
  job.mailbox().post(std::make_unique<TokenMessage>(job, request, index, token, log_prob));
}

// The caller's cancellation flag.
void take_cancel_flag(const Napi::Object& options, Job& job) {
  const View<int32_t> flag = int32(options.Get("cancel"), "cancel");
  if (flag.length != 1) throw invalid(options.Env(), "cancel must have one element");
  job.pin(flag.value);
  job.cancel = flag.data;
}

// An output array: pinned and long enough, or null when the caller wants none.
template <typename T>
T* output(Job& job, const View<T>& view, uint64_t wanted, const char* name) {
  if (view.data == nullptr && view.length == 0) return nullptr;
  if (view.length < wanted) throw invalid(view.value.Env(), std::string(name) + " is too short");
  job.pin(view.value);
  return view.data;
}

template <typename T>
T* required_output(Job& job, const View<T>& view, uint64_t wanted, const char* name) {
  if (view.length < wanted) throw invalid(view.value.Env(), std::string(name) + " is too short");
  job.pin(view.value);
  return view.data;
}

// Copies tokens, which must not change between their check and their use.
const int32_t* kept(std::deque<std::vector<int32_t>>& store, const int32_t* data, int32_t count) {
  store.emplace_back(data, data + count);
  return store.back().data();
}

struct GenerateJob {
  std::deque<std::vector<int32_t>> tokens;
  std::vector<cov_generate_request> requests;
  std::vector<cov_generate_output> outputs;
  cov_fingerprint_options fingerprint{};
  cov_generate_options options{};
};

cov_generate_output generate_output(const Napi::Object& object, const cov_generate_request& request,
                                    int32_t dims, int32_t top_count, Job& job) {
  const auto tokens = static_cast<uint64_t>(request.max_new_tokens);
  const uint64_t tops = tokens * static_cast<uint64_t>(top_count);
  cov_generate_output out{};
  out.tokens = required_output(job, int32(object.Get("tokens"), "tokens"), tokens, "tokens");
  out.log_probs =
      required_output(job, float32(object.Get("logProbs"), "logProbs"), tokens, "logProbs");
  if (dims > 0) {
    const View<int8_t> view = optional_int8(object.Get("fingerprints"), "fingerprints");
    out.fingerprints = output(job, view, tokens * static_cast<uint64_t>(dims), "fingerprints");
  }
  if (top_count > 0) {
    out.top_tokens =
        output(job, optional_int32(object.Get("topTokens"), "topTokens"), tops, "topTokens");
    out.top_log_probs = output(job, optional_float32(object.Get("topLogProbs"), "topLogProbs"),
                               tops, "topLogProbs");
  }
  return out;
}

// Both lists, equally long.
uint32_t request_count(const Napi::Array& requests, const Napi::Array& outputs) {
  if (requests.Length() != outputs.Length() || requests.Length() > kRequestsMax) {
    throw invalid(requests.Env(), "there must be one output for each of at most 65,536 requests");
  }
  return requests.Length();
}

}  // namespace

void prepare_generate(const Napi::CallbackInfo& info, const ModelHandle& of, Job& job) {
  const Napi::Array requests = array_of(info[0], "requests");
  const Napi::Object object = object_of(info[1], "options");
  const Napi::Array outputs = array_of(info[2], "outputs");
  const auto work = std::make_shared<GenerateJob>();
  const bool fingerprinted = fingerprint_of(object, work->fingerprint);
  work->options.weights = weights_of(object);
  take_cancel_flag(object, job);
  work->options.fingerprint = fingerprinted ? &work->fingerprint : nullptr;
  work->options.top_count = integer(object, "topCount", 0, 256);
  work->options.max_batch = integer(object, "maxBatch", 0, 4096);
  work->options.cancel = job.cancel;
  if (const Napi::Value callback = object.Get("onToken"); callback.IsFunction()) {
    job.on_token = Napi::Persistent(callback.As<Napi::Function>());
    work->options.on_token = send_token;
    work->options.context = &job;
  }
  const int32_t dims = fingerprinted ? work->fingerprint.dims : 0;
  for (uint32_t i = 0; i < request_count(requests, outputs); ++i) {
    const Napi::Object request = object_of(requests.Get(i), "a request");
    cov_generate_request& own = work->requests.emplace_back(request_of(request));
    own.prompt = kept(work->tokens, own.prompt, own.prompt_length);
    own.stop_tokens = kept(work->tokens, own.stop_tokens, own.stop_token_count);
    work->outputs.push_back(generate_output(object_of(outputs.Get(i), "an output"),
                                            work->requests.back(), dims, work->options.top_count,
                                            job));
  }
  job.run = [work, raw = of.engine.get()] {
    return raw->calls->generate(work->requests, work->options, work->outputs.data());
  };
  job.result = [work](Napi::Env env) -> Napi::Value {
    Napi::Array list = Napi::Array::New(env, work->outputs.size());
    for (uint32_t i = 0; i < work->outputs.size(); ++i) {
      Napi::Object result = Napi::Object::New(env);
      result.Set("tokenCount", work->outputs[i].token_count);
      result.Set("stopped",
                 Napi::Boolean::New(env, work->outputs[i].finish_reason == COV_FINISH_STOP));
      list.Set(i, result);
    }
    return list;
  };
}

namespace {

struct ReplayJob {
  std::deque<std::vector<int32_t>> tokens;
  std::vector<cov_replay_request> requests;
  std::vector<cov_replay_output> outputs;
  cov_fingerprint_options fingerprint{};
  bool fingerprinted = false;
  int32_t weights = COV_WEIGHTS_F32;
};

cov_replay_request replay_request(const Napi::Object& object,
                                  std::deque<std::vector<int32_t>>& tokens) {
  const View<int32_t> prompt = int32(object.Get("prompt"), "prompt");
  const View<int32_t> completion = int32(object.Get("completion"), "completion");
  if (prompt.length < 1 || prompt.length > INT32_MAX)
    throw invalid(object.Env(), "prompt must have a token");
  if (completion.length < 1 || completion.length > INT32_MAX) {
    throw invalid(object.Env(), "completion must have a token");
  }
  cov_replay_request request{};
  request.prompt_length = static_cast<int32_t>(prompt.length);
  request.prompt = kept(tokens, prompt.data, request.prompt_length);
  request.completion_length = static_cast<int32_t>(completion.length);
  request.completion = kept(tokens, completion.data, request.completion_length);
  request.temperature = static_cast<float>(number(object, "temperature"));
  request.top_k = integer(object, "topK", 0, INT32_MAX);
  request.top_p = static_cast<float>(number(object, "topP"));
  seed_of(object.Get("samplingSeed"), "samplingSeed", request.sampling_seed);
  return request;
}

cov_replay_output replay_output(const Napi::Object& object, uint64_t tokens, int32_t dims,
                                Job& job) {
  cov_replay_output out{};
  out.drawn = required_output(job, int32(object.Get("drawn"), "drawn"), tokens, "drawn");
  out.margin = required_output(job, float32(object.Get("margin"), "margin"), tokens, "margin");
  out.log_probs =
      required_output(job, float32(object.Get("logProbs"), "logProbs"), tokens, "logProbs");
  if (dims > 0) {
    const View<int8_t> view = optional_int8(object.Get("fingerprints"), "fingerprints");
    out.fingerprints = output(job, view, tokens * static_cast<uint64_t>(dims), "fingerprints");
  }
  return out;
}

}  // namespace

void prepare_replay(const Napi::CallbackInfo& info, const ModelHandle& of, Job& job) {
  const Napi::Array requests = array_of(info[0], "requests");
  const Napi::Object object = object_of(info[1], "options");
  const Napi::Array outputs = array_of(info[2], "outputs");
  const auto work = std::make_shared<ReplayJob>();
  work->fingerprinted = fingerprint_of(object, work->fingerprint);
  work->weights = weights_of(object);
  take_cancel_flag(object, job);
  const int32_t dims = work->fingerprinted ? work->fingerprint.dims : 0;
  for (uint32_t i = 0; i < request_count(requests, outputs); ++i) {
    work->requests.push_back(
        replay_request(object_of(requests.Get(i), "a request"), work->tokens));
    const auto tokens = static_cast<uint64_t>(work->requests.back().completion_length);
    work->outputs.push_back(
        replay_output(object_of(outputs.Get(i), "an output"), tokens, dims, job));
  }
  job.run = [work, cancel = job.cancel, raw = of.engine.get()] {
    const cov_replay_options options = {work->fingerprinted ? &work->fingerprint : nullptr, cancel,
                                        work->weights};
    return raw->calls->replay(work->requests, options, work->outputs.data());
  };
}

}  // namespace covenant_node
