#include "jobs.h"

#include <new>

#include "convert.h"

namespace covenant_node {

// --- Mailbox ---------------------------------------------------------------------------------

Mailbox::Mailbox(Napi::Env env) : env_(env) {
  const auto call = [](napi_env call_env, napi_value, void*, void* data) {
    const std::unique_ptr<Message> message(static_cast<Message*>(data));
    if (call_env == nullptr) {
      message->abandon();
      return;
    }
    try {
      message->deliver(Napi::Env(call_env));
    } catch (const Napi::Error&) {
      // A terminated worker can run no more JavaScript; nobody is left to hear of the job.
    }
  };
  const napi_status status = napi_create_threadsafe_function(
      env, nullptr, nullptr, Napi::String::New(env, "covenant_kernels"), 0, 1, nullptr, nullptr,
      nullptr, call, &function_);
  if (status != napi_ok) throw Napi::Error::New(env);
  napi_unref_threadsafe_function(env, function_);
}

void Mailbox::post(std::unique_ptr<Message> message) {
  // Threads are joined before the function is released, so the call fails only for want of memory.
  if (napi_call_threadsafe_function(function_, message.get(), napi_tsfn_nonblocking) == napi_ok) {
    (void)message.release();
  } else {
    message->abandon();
  }
}

void Mailbox::add_pending() {
  if (pending_++ == 0) napi_ref_threadsafe_function(env_, function_);
}

void Mailbox::remove_pending() {
  if (--pending_ == 0) napi_unref_threadsafe_function(env_, function_);
}

void Mailbox::close() { napi_release_threadsafe_function(function_, napi_tsfn_release); }

// --- Job -------------------------------------------------------------------------------------

Job::Job(Napi::Env env, std::shared_ptr<Mailbox> mailbox)
    : mailbox_(std::move(mailbox)), deferred_(Napi::Promise::Deferred::New(env)) {}

void Job::pin(const Napi::Value& value) {
  if (!value.IsEmpty() && value.IsObject())
    pins_.push_back(Napi::Persistent(value.As<Napi::Object>()));
}

void Job::execute() {
  if (cancel != nullptr && __atomic_load_n(cancel, __ATOMIC_RELAXED) != 0) {
    status_ = cov_error(COV_CANCELLED, "the job was cancelled before it began");
    return;
  }
  try {
    status_ = run();
  } catch (const std::bad_alloc&) {
    status_ = cov_error(COV_OUT_OF_MEMORY, "the system refused an allocation");
  } catch (const std::exception& error) {
    status_ = cov_error(COV_INTERNAL, "%s", error.what());
  }
}

void Job::deliver(Napi::Env env) {
  mailbox_->remove_pending();
  try {
    if (code_ != nullptr) {
      deferred_.Reject(error_with_code(env, code_, status_.message).Value());
    } else if (status_.code != COV_OK) {
      deferred_.Reject(error_of(env, status_).Value());
    } else {
      deferred_.Resolve(result ? result(env) : env.Undefined());
    }
  } catch (const Napi::Error& error) {
    deferred_.Reject(error.Value());
  } catch (const std::exception& error) {
    deferred_.Reject(error_of(env, cov_error(COV_INTERNAL, "%s", error.what())).Value());
  }
}

void Job::abandon() {
  // The environment frees its references itself.
  for (Napi::ObjectReference& pin : pins_) pin.SuppressDestruct();
  on_token.SuppressDestruct();
}

// --- JobQueue --------------------------------------------------------------------------------

JobQueue::JobQueue(std::shared_ptr<Registry> registry, std::function<void()> on_exit)
    : registry_(std::move(registry)), on_exit_(std::move(on_exit)), thread_([this] { work(); }) {
  registry_->add(this);
}

JobQueue::~JobQueue() {
  registry_->remove(this);
  join();
}

Napi::Value JobQueue::submit(std::unique_ptr<Job> job) {
  const Napi::Promise promise = job->promise();
  job->mailbox().add_pending();
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!closed_ && waiting_.size() < kQueuedJobsMax) {
      waiting_.push_back(std::move(job));
      wake_.notify_one();
      return promise;
    }
  }
  if (closed_)
    job->refuse(cov_error(COV_FAILED_PRECONDITION, "the model is closed"), "COV_KERNELS_CLOSED");
  else
    job->refuse(cov_error(COV_FAILED_PRECONDITION,
                          "%zu jobs are already waiting; await some of them first", kQueuedJobsMax),
                "COV_KERNELS_QUEUE_FULL");
  Mailbox& mailbox = job->mailbox();
  mailbox.post(std::move(job));
  return promise;
}

void JobQueue::close() {
  std::deque<std::unique_ptr<Job>> dropped;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    closed_ = true;
    dropped.swap(waiting_);
    if (running_ != nullptr && running_->cancel != nullptr)
      __atomic_store_n(running_->cancel, 1, __ATOMIC_RELAXED);
    wake_.notify_one();
  }
  for (std::unique_ptr<Job>& job : dropped) {
    job->refuse(cov_error(COV_FAILED_PRECONDITION, "the model was closed before the job began"),
                "COV_KERNELS_CLOSED");
    Mailbox& mailbox = job->mailbox();
    mailbox.post(std::move(job));
  }
}

void JobQueue::join() {
  close();
  if (thread_.joinable()) thread_.join();
}

void JobQueue::work() {
  for (;;) {
    std::unique_ptr<Job> job;
    {
      std::unique_lock<std::mutex> lock(mutex_);
      running_ = nullptr;
      wake_.wait(lock, [this] { return closed_ || !waiting_.empty(); });
      if (waiting_.empty()) break;
      job = std::move(waiting_.front());
      waiting_.pop_front();
      running_ = job.get();
    }
    job->execute();
    {
      // From here on the job belongs to the JavaScript thread.
      const std::lock_guard<std::mutex> lock(mutex_);
      running_ = nullptr;
    }
    Mailbox& mailbox = job->mailbox();
    mailbox.post(std::move(job));
  }
  if (on_exit_) on_exit_();
}

// --- environment -----------------------------------------------------------------------------

void Registry::shut_down() {
  for (JobQueue* queue : queues_) queue->close();
  for (JobQueue* queue : queues_) queue->join();
}

AddonData::AddonData(Napi::Env env)
    : mailbox(std::make_shared<Mailbox>(env)),
      registry(std::make_shared<Registry>()),
      stateless(std::make_unique<JobQueue>(registry, nullptr)) {
  // Runs before the mailbox is torn down, because hooks run in reverse order of their registration.
  env.AddCleanupHook(
      [](AddonData* data) {
        data->registry->shut_down();
        data->mailbox->close();
      },
      this);
}

AddonData::~AddonData() {
  model_class.SuppressDestruct();
  generator_class.SuppressDestruct();
}

AddonData& addon_data(Napi::Env env) { return *env.GetInstanceData<AddonData>(); }

}  // namespace covenant_node
