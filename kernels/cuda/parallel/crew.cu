#include "parallel/crew.h"

namespace covenant::cuda {

Crew::Crew(size_t members) {
  threads_.reserve(members);
  try {
    for (size_t member = 1; member < members; ++member) threads_.emplace_back(&Crew::work, this, member);
  } catch (...) {
    dismiss();
    throw;
  }
}

Crew::~Crew() { dismiss(); }

void Crew::dismiss() {
  {
    const std::lock_guard<std::mutex> guard(mutex_);
    dismissed_ = true;
  }
  called_.notify_all();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

void Crew::run(const std::function<void(size_t)>& body) {
  {
    const std::lock_guard<std::mutex> guard(mutex_);
    body_ = &body;
    busy_ = threads_.size();
    ++runs_;
  }
  called_.notify_all();
  body(0);
  std::unique_lock<std::mutex> lock(mutex_);
  done_.wait(lock, [&] { return busy_ == 0; });
}

void Crew::work(size_t member) {
  uint64_t seen = 0;
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    called_.wait(lock, [&] { return dismissed_ || runs_ != seen; });
    if (dismissed_) return;
    seen = runs_;
    const std::function<void(size_t)>& body = *body_;
    lock.unlock();
    body(member);
    lock.lock();
    if (--busy_ == 0) done_.notify_one();
  }
}

}  // namespace covenant::cuda
