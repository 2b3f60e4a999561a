// A small pool for fork-join loops. Work is cut into numbered tasks; where that could show in the
// bits, the partition does not depend on the thread count, so results never do. With one thread
// everything runs on the caller.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace covenant {

// Non-owning reference to a callable `void(int64_t task)`; valid while the callable lives.
class TaskRef {
 public:
  template <typename Callable>
  TaskRef(const Callable& callable)  // NOLINT: implicit on purpose
      : object_(&callable), call_([](const void* object, int64_t task) {
          (*static_cast<const Callable*>(object))(task);
        }) {}
  void operator()(int64_t task) const { call_(object_, task); }

 private:
  const void* object_;
  void (*call_)(const void*, int64_t);
};

// Smaller of CPU affinity and cgroup CPU quota (v1 and v2), at least 1.
int default_thread_count();

// CPUs that the quotas of this process's control group and of those above it leave, 0 without a
// quota. `root`: where control groups are mounted; `own`: /proc/self/cgroup. Elsewhere than on
// Linux always 0.
double cgroup_cpus(const char* root, const char* own);

class ThreadPool {
 public:
  // `threads` >= 1 counts the caller. If the system refuses threads or memory, the pool has fewer.
  // Does not throw.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Inside a body: which thread runs it, in [0, threads()); 0 is the caller. For private scratch.
  static int worker();

  // Runs body(0) .. body(tasks - 1), each once, and returns when all are done. Bodies must not
  // throw and must not call run on the same pool. One caller at a time. With parallel = false
  // everything runs on the caller: right for work shorter than handing it over (a microsecond when
  // runs follow each other closely, about 50 us when the workers have gone to sleep).
  void run(int64_t tasks, TaskRef body, bool parallel = true);

  // One run of the tasks of several loops that do not wait for each other, those of the first first:
  // small tasks belong to the end, where they even out who is done when.
  struct Loop {
    int64_t tasks;
    TaskRef body;
  };
  void run_together(const std::vector<Loop>& loops, bool parallel = true);

 private:
  void work(int index);
  int64_t drain(const TaskRef& body, int64_t tasks);  // how many it ran
  void share(int64_t tasks, const TaskRef& body);
  void account(double saved_s);

  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable done_;
  const TaskRef* body_ = nullptr;
  int64_t tasks_ = 0;
  // Changed under the mutex; atomic because those who wait look at them for a few microseconds
  // before they sleep.
  std::atomic<uint64_t> generation_{0};
  std::atomic<int> active_{0};
  std::atomic<bool> stop_{false};
  std::atomic<int64_t> next_{0};
  // What helpers have saved of late, in seconds: below zero they cost.
  double saved_s_ = 0;
  int64_t shared_runs_ = 0, measured_runs_ = 0;
  double alone_until_s_ = 0;  // without helpers until then; 0: with them
  double alone_s_ = 0;        // for how long, the last time they did not pay
};

}  // namespace covenant
