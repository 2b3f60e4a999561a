// Fork-join pool. Workers look for the next run for some ten microseconds, which is as long as the
// gaps between the products of a decoding step, and then sleep on a condition variable, so that an
// oversubscribed machine is not spun on.
#include "core/thread_pool.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <string>
#include <system_error>

#if defined(__linux__)
#include <sched.h>
#endif

namespace covenant {
namespace {

#if defined(__linux__)
// CPUs of a quota file pair or of cgroup v2's cpu.max; 0 when there is no limit.
double quota_from(const char* path, bool v2) {
  std::FILE* file = std::fopen(path, "r");
  if (file == nullptr) return 0.0;
  char text[64] = {0};
  const size_t read = std::fread(text, 1, sizeof text - 1, file);
  std::fclose(file);
  if (read == 0) return 0.0;
  char* end = nullptr;
  const double quota = std::strtod(text, &end);  // "max" parses as nothing
  if (end == text || quota <= 0) return 0.0;
  if (!v2) return quota;
  const double period = std::strtod(end, nullptr);
  return period > 0 ? quota / period : 0.0;
}

// Path of this process in the one hierarchy of cgroup v2 ("0::/a/b"), without the line's end; empty
// when there is none.
std::string own_group(const char* file_name) {
  std::FILE* file = std::fopen(file_name, "r");
  if (file == nullptr) return {};
  char line[4096];
  std::string path;
  while (path.empty() && std::fgets(line, sizeof line, file) != nullptr)
    if (std::strncmp(line, "0::/", 4) == 0) path.assign(line + 3, std::strcspn(line + 3, "\n"));
  std::fclose(file);
  return path;
}
#endif

thread_local int worker_index = 0;

constexpr int kPauses = 400;  // of 20 to 40 ns

// Waits a little for `done`; false when it did not come.
template <typename Done>
bool soon(const Done& done) {
  for (int i = 0; i < kPauses; ++i) {
    if (done()) return true;
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
  }
  return false;
}

// Account of what helpers bring: one run in kMeasureEvery is timed, every one after a time alone.
// Such times are counted in seconds, not runs: what disturbs does not end sooner for short runs.
constexpr int64_t kMeasureEvery = 4;
constexpr int64_t kMeasuredLeast = 16;
constexpr double kMemory = 0.97;  // weight of the past per measured run
constexpr double kAloneLeastS = 0.005, kAloneMostS = 0.5;

double wall_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Time this thread has run; what the system gave to others in between does not count.
double own_s() {
#if defined(__linux__)
  timespec time = {};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
#else
  return wall_s();
#endif
}

}  // namespace

double cgroup_cpus(const char* root, const char* own) {
  double cpus = 0;
#if defined(__linux__)
  // A limit of any group above holds as well. In a container the own group is usually the root.
  for (std::string path = own_group(own);;) {
    const double here = quota_from((root + path + "/cpu.max").c_str(), true);
    if (here > 0 && (cpus == 0 || here < cpus)) cpus = here;
    if (path.empty()) break;
    path.resize(path.find_last_of('/'));
  }
  if (cpus > 0) return cpus;
  const std::string v1 = std::string(root) + "/cpu/cpu.cfs_";
  const double quota = quota_from((v1 + "quota_us").c_str(), false);
  const double period = quota_from((v1 + "period_us").c_str(), false);
  if (quota > 0 && period > 0) cpus = quota / period;
#else
  static_cast<void>(root), static_cast<void>(own);
#endif
  return cpus;
}

int ThreadPool::worker() { return worker_index; }

int default_thread_count() {
  int cpus = static_cast<int>(std::thread::hardware_concurrency());
#if defined(__linux__)
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0) cpus = CPU_COUNT(&set);
  const double quota = cgroup_cpus("/sys/fs/cgroup", "/proc/self/cgroup");
  if (quota > 0 && quota < cpus) cpus = static_cast<int>(quota);  // rounds down
#endif
  return cpus < 1 ? 1 : cpus;
}

ThreadPool::ThreadPool(int threads) {
  try {
    workers_.reserve(static_cast<size_t>(threads > 1 ? threads - 1 : 0));
    for (int i = 1; i < threads; ++i) workers_.emplace_back([this, i] { work(i); });
  } catch (const std::exception&) {
    // No thread, or no memory for one. Fewer threads: slower, same results.
  }
}

ThreadPool::~ThreadPool() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

int64_t ThreadPool::drain(const TaskRef& body, int64_t tasks) {
  for (int64_t ran = 0;; ++ran) {
    const int64_t task = next_.fetch_add(1, std::memory_order_relaxed);
    if (task >= tasks) return ran;
    body(task);
  }
}

void ThreadPool::run(int64_t tasks, TaskRef body, bool parallel) {
  if (parallel && !workers_.empty() && tasks > 1) {
    if (alone_until_s_ > 0 && wall_s() >= alone_until_s_) alone_until_s_ = 0;
    if (alone_until_s_ == 0) return share(tasks, body);
  }
  for (int64_t task = 0; task < tasks; ++task) body(task);
}

void ThreadPool::run_together(const std::vector<Loop>& loops, bool parallel) {
  int64_t tasks = 0;
  for (const Loop& loop : loops) tasks += loop.tasks;
  run(
      tasks,
      [&loops](int64_t task) {
        for (const Loop& loop : loops) {
          if (task < loop.tasks) return loop.body(task);
          task -= loop.tasks;
        }
      },
      parallel);
}

void ThreadPool::share(int64_t tasks, const TaskRef& body) {
  const bool measured = alone_s_ > 0 || shared_runs_++ % kMeasureEvery == 0;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    body_ = &body;
    tasks_ = tasks;
    next_.store(0, std::memory_order_relaxed);
    ++generation_;
  }
  wake_.notify_all();
  const double start_s = measured ? own_s() : 0;
  const int64_t ran = drain(body, tasks);
  const double ran_s = measured ? own_s() - start_s : 0, wait_s = measured ? wall_s() : 0;
  {
    // A worker that has not woken up yet finds nothing to do: only those inside count.
    std::lock_guard<std::mutex> lock(mutex_);
    body_ = nullptr;
  }
  const auto idle = [this] { return active_.load(std::memory_order_acquire) == 0; };
  if (!soon(idle)) {
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, idle);
  }
  // The helpers' tasks would have taken the caller as long as its own did.
  if (measured && ran > 0)
    account(ran_s / static_cast<double>(ran) * static_cast<double>(tasks - ran) -
            (wall_s() - wait_s));
}

void ThreadPool::account(double saved_s) {
  saved_s_ = kMemory * saved_s_ + saved_s;
  if (++measured_runs_ < kMeasuredLeast) return;
  if (saved_s_ < 0) {
    alone_s_ = std::clamp(2 * alone_s_, kAloneLeastS, kAloneMostS);
    alone_until_s_ = wall_s() + alone_s_;
    saved_s_ = 0;
    measured_runs_ = 0;
  } else if (measured_runs_ >= 4 * kMeasuredLeast) {
    alone_s_ = 0;
  }
}

void ThreadPool::work(int index) {
  worker_index = index;
  uint64_t seen = 0;
  for (;;) {
    soon([&] {
      return generation_.load(std::memory_order_acquire) != seen ||
             stop_.load(std::memory_order_relaxed);
    });
    std::unique_lock<std::mutex> lock(mutex_);
    wake_.wait(lock, [&] { return stop_ || generation_ != seen; });
    if (stop_) return;
    seen = generation_;
    if (body_ == nullptr) continue;  // that run is over: look for the next one
    const TaskRef* body = body_;
    const int64_t tasks = tasks_;
    ++active_;
    lock.unlock();
    drain(*body, tasks);
    if (active_.fetch_sub(1, std::memory_order_acq_rel) != 1) continue;
    // The caller may have looked just before and be about to sleep.
    lock.lock();
    done_.notify_one();
  }
}

}  // namespace covenant
