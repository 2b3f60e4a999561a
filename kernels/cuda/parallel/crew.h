// Threads that work for the replicas of a model, one each.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace covenant::cuda {

// Unlike a ThreadPool's, its bodies may use pools of their own.
class Crew {
 public:
  // Throws when the system refuses a thread.
  explicit Crew(size_t members);
  ~Crew();
  Crew(const Crew&) = delete;
  Crew& operator=(const Crew&) = delete;

  size_t members() const { return threads_.size() + 1; }
  // Calls body(member) for each member, all at once, the first one on this thread, and returns when all are
  // done. Bodies must not throw.
  void run(const std::function<void(size_t member)>& body);

 private:
  void work(size_t member);
  void dismiss();

  std::mutex mutex_;
  std::condition_variable called_, done_;
  const std::function<void(size_t)>* body_ = nullptr;
  uint64_t runs_ = 0;
  size_t busy_ = 0;
  bool dismissed_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace covenant::cuda
