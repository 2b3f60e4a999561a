// Engine threads: heavy calls run on a thread of their own and answer by a promise. No call blocks
// JavaScript or libuv's pool, and nothing is global: an environment (main thread or worker) has its
// own mailbox and queues.
#pragma once

#include <napi.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "covenant/status.h"

namespace covenant_node {

// Jobs that may wait for one thread; a caller that piles up more is told so.
constexpr size_t kQueuedJobsMax = 1024;

class JobQueue;

// Something that happens on the JavaScript thread. `env` is null when the environment is being torn
// down; then nothing of JavaScript may be touched.
class Message {
 public:
  virtual ~Message() = default;
  virtual void deliver(Napi::Env env) = 0;
  virtual void abandon() {}
};

// The way from engine threads to the JavaScript thread of one environment, in order of sending.
class Mailbox {
 public:
  explicit Mailbox(Napi::Env env);
  void post(std::unique_ptr<Message> message);
  // While jobs are pending the event loop stays alive. JavaScript thread only.
  void add_pending();
  void remove_pending();
  void close();

 private:
  napi_env env_;
  napi_threadsafe_function function_ = nullptr;
  uint32_t pending_ = 0;
};

// One job: what runs on the engine thread, what it gives, and what it keeps alive meanwhile.
class Job : public Message {
 public:
  Job(Napi::Env env, std::shared_ptr<Mailbox> mailbox);

  // Keeps a value alive until the promise settles.
  void pin(const Napi::Value& value);
  Napi::Promise promise() const { return deferred_.Promise(); }

  std::function<cov_status()> run;  // on the engine thread
  std::function<Napi::Value(Napi::Env)>
      result;                 // on the JavaScript thread, after success; default undefined
  int32_t* cancel = nullptr;  // set to 1 when nobody waits for the job any more
  Napi::FunctionReference on_token;
  Mailbox& mailbox() { return *mailbox_; }

  void execute();
  void refuse(cov_status status, const char* code) {
    status_ = status;
    code_ = code;
  }
  void deliver(Napi::Env env) override;
  void abandon() override;

 private:
  std::shared_ptr<Mailbox> mailbox_;
  Napi::Promise::Deferred deferred_;
  std::vector<Napi::ObjectReference> pins_;
  cov_status status_{};
  const char* code_ = nullptr;  // instead of the code of the status
};

// The queues of an environment, so that its end can wait for their threads.
class Registry {
 public:
  void add(JobQueue* queue) { queues_.insert(queue); }
  void remove(JobQueue* queue) { queues_.erase(queue); }
  // Stops and joins all threads. JavaScript thread only, like the others.
  void shut_down();

 private:
  std::set<JobQueue*> queues_;
};

// One thread and the jobs waiting for it. All members are for the JavaScript thread.
class JobQueue {
 public:
  JobQueue(std::shared_ptr<Registry> registry, std::function<void()> on_exit);
  ~JobQueue();
  JobQueue(const JobQueue&) = delete;
  JobQueue& operator=(const JobQueue&) = delete;

  // Takes the job; its promise rejects with COV_KERNELS_CLOSED or COV_KERNELS_QUEUE_FULL where it
  // cannot run.
  Napi::Value submit(std::unique_ptr<Job> job);

  // Waiting jobs are rejected, the running one is asked to stop and then settles as usual; returns
  // at once.
  void close();
  bool closed() const { return closed_; }

  // close, then waits for the thread.
  void join();

 private:
  void work();

  std::shared_ptr<Registry> registry_;
  std::function<void()> on_exit_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::unique_ptr<Job>> waiting_;
  Job* running_ = nullptr;
  bool closed_ = false;
  std::thread thread_;
};

// What the addon keeps for an environment.
struct AddonData {
  explicit AddonData(Napi::Env env);
  ~AddonData();
  std::shared_ptr<Mailbox> mailbox;
  std::shared_ptr<Registry> registry;
  std::unique_ptr<JobQueue> stateless;  // jobs without a model
  Napi::FunctionReference model_class;
  Napi::FunctionReference generator_class;
};

AddonData& addon_data(Napi::Env env);

}  // namespace covenant_node
