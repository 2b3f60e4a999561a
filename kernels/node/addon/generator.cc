#include "generator.h"

#include <chrono>
#include <map>
#include <mutex>
#include <set>
#include <utility>
#include <vector>

#include "bindings.h"
#include "convert.h"
#include "generation.h"

namespace covenant_node {
namespace {

// How long other jobs of the model wait at most, a step aside.
constexpr std::chrono::milliseconds kSlice(20);

// A request on its way to the engine thread.
struct Submission {
  int64_t key = 0;
  std::vector<int32_t> prompt, stops;
  cov_generate_request request{};
  bool fingerprinted = false;
  cov_fingerprint_options fingerprint{};
  int32_t top_count = 0;
};

// An event on its way back.
struct Event {
  int64_t key = 0;
  int32_t index = 0, token = -1, finish = COV_FINISH_NOT_YET;
  float log_prob = 0;
  std::vector<int8_t> fingerprint;
  std::vector<int32_t> top_tokens;
  std::vector<float> top_log_probs;
  cov_status status{};
};

struct GeneratorEngine {
  explicit GeneratorEngine(ModelHandle of)
      : model(std::move(of.engine)), adapter(std::move(of.adapter)) {}
  ~GeneratorEngine() {
    // Rarely a wait: only when the object goes while a job of the model runs.
    const std::lock_guard lock(model->busy);
    calls.reset();
  }

  std::shared_ptr<ModelEngine> model;
  std::shared_ptr<Adapter> adapter;  // whose weights it takes; null: the model's own
  std::unique_ptr<GeneratorCalls> calls;  // engine thread; null once closed
  int32_t stop = 0;                    // set when the model closes

  std::mutex mutex;  // guards what follows
  std::vector<Submission> inbox;
  std::vector<int64_t> cancels;
  cov_generator_state state{};

  // Engine thread: keys of requests under way.
  struct Known {
    int64_t key;
    int32_t dims, top_count;
  };
  std::map<uint64_t, Known> known;
};

template <typename Array, typename T>
Napi::Value array_from(Napi::Env env, const std::vector<T>& values) {
  Array array = Array::New(env, values.size());
  std::copy(values.begin(), values.end(), array.Data());
  return array;
}

class EventsMessage : public Message {
 public:
  EventsMessage(Job& job, std::vector<Event> events) : job_(job), events_(std::move(events)) {}

  void deliver(Napi::Env env) override {
    Napi::Array list = Napi::Array::New(env, events_.size());
    for (uint32_t i = 0; i < events_.size(); ++i) {
      const Event& event = events_[i];
      Napi::Object object = Napi::Object::New(env);
      object.Set("key", static_cast<double>(event.key));
      object.Set("index", event.index);
      object.Set("token", event.token);
      object.Set("logProb", static_cast<double>(event.log_prob));
      object.Set("finish", event.finish);
      if (!event.fingerprint.empty())
        object.Set("fingerprint", array_from<Napi::Int8Array>(env, event.fingerprint));
      if (!event.top_tokens.empty()) {
        object.Set("topTokens", array_from<Napi::Int32Array>(env, event.top_tokens));
        object.Set("topLogProbs", array_from<Napi::Float32Array>(env, event.top_log_probs));
      }
      if (event.status.code != COV_OK) object.Set("error", error_of(env, event.status).Value());
      list.Set(i, object);
    }
    job_.on_token.Call({list});
  }

 private:
  Job& job_;  // its own message comes later on the same way
  std::vector<Event> events_;
};

// ---- engine thread -----------------------------------------------------------------------------

void take_event(GeneratorEngine& engine, std::vector<Event>& events,
                const cov_generator_event& from) {
  const auto found = engine.known.find(from.request);
  const GeneratorEngine::Known& known = found->second;
  Event event;
  event.key = known.key;
  event.index = from.index;
  event.token = from.token;
  event.finish = from.finish_reason;
  event.log_prob = from.log_prob;
  event.status = from.status;
  if (from.fingerprint != nullptr)
    event.fingerprint.assign(from.fingerprint, from.fingerprint + known.dims);
  if (from.top_tokens != nullptr) {
    event.top_tokens.assign(from.top_tokens, from.top_tokens + known.top_count);
    event.top_log_probs.assign(from.top_log_probs, from.top_log_probs + known.top_count);
  }
  events.push_back(std::move(event));
  if (from.finish_reason != COV_FINISH_NOT_YET) engine.known.erase(found);
}

void submit_now(GeneratorEngine& engine, Submission& s, std::vector<Event>& events) {
  s.request.prompt = s.prompt.data();
  s.request.stop_tokens = s.stops.data();
  uint64_t id = 0;
  const cov_status status = engine.calls->submit(
      s.request, s.fingerprinted ? &s.fingerprint : nullptr, s.top_count, &id);
  if (status.code == COV_OK) {
    engine.known[id] = {s.key, s.fingerprinted ? s.fingerprint.dims : 0, s.top_count};
    return;
  }
  Event event;
  event.key = s.key;
  event.finish = COV_FINISH_FAILED;
  event.status = status;
  events.push_back(std::move(event));
}

void take_inbox(GeneratorEngine& engine, std::vector<Event>& events) {
  std::vector<Submission> submissions;
  std::vector<int64_t> cancels;
  {
    const std::lock_guard<std::mutex> lock(engine.mutex);
    submissions.swap(engine.inbox);
    cancels.swap(engine.cancels);
  }
  // Those who leave make room for those who come; some were never heard of here.
  const std::set<int64_t> gone(cancels.begin(), cancels.end());
  for (auto it = engine.known.begin(); !gone.empty() && it != engine.known.end();) {
    if (gone.count(it->second.key) == 0) {
      ++it;
      continue;
    }
    (void)engine.calls->cancel(it->first);
    it = engine.known.erase(it);
  }
  for (Submission& submission : submissions)
    if (gone.count(submission.key) == 0) submit_now(engine, submission, events);
}

// Steps until nothing is left or the slice is over.
cov_status drive(GeneratorEngine& engine, Job& job, bool& more) {
  const auto end = std::chrono::steady_clock::now() + kSlice;
  struct Sink {
    GeneratorEngine& engine;
    std::vector<Event> events;
  };
  for (;;) {
    Sink sink{engine, {}};
    if (__atomic_load_n(&engine.stop, __ATOMIC_RELAXED) != 0)
      return cov_error(COV_CANCELLED, "the model is being closed");
    take_inbox(engine, sink.events);
    int32_t active = 0;
    const cov_status status = engine.calls->step(
        [](void* context, const cov_generator_event* event) {
          Sink& to = *static_cast<Sink*>(context);
          take_event(to.engine, to.events, *event);
        },
        &sink, &active);
    {
      // Before the events are on their way: who hears that a request ended finds it gone.
      const std::lock_guard<std::mutex> lock(engine.mutex);
      engine.state = engine.calls->state();
      more = active > 0 || !engine.inbox.empty();
    }
    if (!sink.events.empty())
      job.mailbox().post(std::make_unique<EventsMessage>(job, std::move(sink.events)));
    if (status.code != COV_OK) return status;
    if (!more || std::chrono::steady_clock::now() >= end) return cov_ok();
  }
}

cov_status closed(Job& job) {
  const cov_status status = cov_error(COV_FAILED_PRECONDITION, "the generator is closed");
  job.refuse(status, "COV_KERNELS_CLOSED");
  return status;
}

// ---- the class ---------------------------------------------------------------------------------

class Generator : public Napi::ObjectWrap<Generator> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(env, "Generator",
                       {InstanceMethod<&Generator::submit>("submit"),
                        InstanceMethod<&Generator::cancel>("cancel"),
                        InstanceMethod<&Generator::drive_slice>("drive"),
                        InstanceMethod<&Generator::refresh>("refresh"),
                        InstanceMethod<&Generator::state>("state"),
                        InstanceMethod<&Generator::close>("close")});
  }

  explicit Generator(const Napi::CallbackInfo& info) : Napi::ObjectWrap<Generator>(info) {
    if (!info[0].IsExternal())
      throw invalid(info.Env(), "a generator is made by Model.createGenerator");
    engine_ = *info[0].As<Napi::External<std::shared_ptr<GeneratorEngine>>>().Data();
  }

 private:
  std::unique_ptr<Job> new_job(const Napi::CallbackInfo& info) {
    auto job = std::make_unique<Job>(info.Env(), addon_data(info.Env()).mailbox);
    job->pin(info.This());
    return job;
  }

  void submit(const Napi::CallbackInfo& info) {
    Submission s;
    s.key = info[0].As<Napi::Number>().Int64Value();
    s.request = request_of(object_of(info[1], "a request"));
    s.prompt.assign(s.request.prompt, s.request.prompt + s.request.prompt_length);
    s.stops.assign(s.request.stop_tokens, s.request.stop_tokens + s.request.stop_token_count);
    const Napi::Object options = object_of(info[2], "options");
    s.fingerprinted = fingerprint_of(options, s.fingerprint);
    s.top_count = integer(options, "topCount", 0, 256);
    const std::lock_guard<std::mutex> lock(engine_->mutex);
    engine_->inbox.push_back(std::move(s));
  }

  void cancel(const Napi::CallbackInfo& info) {
    const std::lock_guard<std::mutex> lock(engine_->mutex);
    engine_->cancels.push_back(info[0].As<Napi::Number>().Int64Value());
  }

  Napi::Value drive_slice(const Napi::CallbackInfo& info) {
    if (!info[0].IsFunction()) throw invalid(info.Env(), "drive takes a callback");
    auto job = new_job(info);
    job->on_token = Napi::Persistent(info[0].As<Napi::Function>());
    job->cancel = &engine_->stop;
    const auto more = std::make_shared<bool>(false);
    job->run = [engine = engine_.get(), more, raw = job.get()] {
      if (engine->calls == nullptr) return closed(*raw);
      return drive(*engine, *raw, *more);
    };
    job->result = [more](Napi::Env env) -> Napi::Value { return Napi::Boolean::New(env, *more); };
    return engine_->model->submit(std::move(job));
  }

  Napi::Value refresh(const Napi::CallbackInfo& info) {
    auto job = new_job(info);
    job->run = [engine = engine_.get(), raw = job.get()] {
      if (engine->calls == nullptr) return closed(*raw);
      const cov_status status = use_adapter(*engine->model, engine->adapter.get(), *raw);
      return status.code == COV_OK ? engine->calls->refresh() : status;
    };
    return engine_->model->submit(std::move(job));
  }

  Napi::Value state(const Napi::CallbackInfo& info) {
    Napi::Object object = Napi::Object::New(info.Env());
    const std::lock_guard<std::mutex> lock(engine_->mutex);
    const cov_generator_state& s = engine_->state;
    object.Set("running", s.running);
    object.Set("waiting", s.waiting);
    object.Set("pages", static_cast<double>(s.pages));
    object.Set("pageBytes", static_cast<double>(s.page_bytes));
    object.Set("weightBytes", static_cast<double>(s.weight_bytes));
    object.Set("computedPositions", static_cast<double>(s.computed_rows));
    object.Set("sharedPositions", static_cast<double>(s.shared_rows));
    object.Set("preemptions", static_cast<double>(s.preemptions));
    return object;
  }

  Napi::Value close(const Napi::CallbackInfo& info) {
    auto job = new_job(info);
    job->run = [engine = engine_.get()] {
      engine->calls.reset();
      return cov_ok();
    };
    return engine_->model->submit(std::move(job));
  }

  std::shared_ptr<GeneratorEngine> engine_;
};

}  // namespace

void prepare_generator(const Napi::CallbackInfo& info, const ModelHandle& of, Job& job) {
  const Napi::Object object = object_of(info[0], "options");
  cov_generator_options options{};
  options.weights = weights_of(object);
  options.max_batch = integer(object, "maxBatch", 0, 1024);
  options.step_rows = integer(object, "stepRows", 0, 65536);
  options.page_limit = integer(object, "pageLimit", 0, INT32_MAX);
  options.request_limit = integer(object, "requestLimit", 0, 1 << 20);
  const auto engine = std::make_shared<GeneratorEngine>(of);
  job.run = [options, raw = engine.get()] {
    const cov_status status = raw->model->calls->create_generator(options, raw->calls);
    if (status.code == COV_OK) raw->state = raw->calls->state();
    return status;
  };
  job.result = [engine](Napi::Env env) -> Napi::Value {
    auto held = engine;
    return addon_data(env).generator_class.New(
        {Napi::External<std::shared_ptr<GeneratorEngine>>::New(env, &held)});
  };
}

void export_generator(Napi::Env env, Napi::Object exports) {
  const Napi::Function generator_class = Generator::define(env);
  addon_data(env).generator_class = Napi::Persistent(generator_class);
  exports.Set("Generator", generator_class);
}

}  // namespace covenant_node
