// The pool runs every task once, from any number of threads, again and again.
#include "core/thread_pool.h"

#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

#include "../check.h"

int main() {
  for (const int threads : {1, 2, 5}) {
    covenant::ThreadPool pool(threads);
    CHECK(pool.threads() == threads);
    for (int round = 0; round < 300; ++round) {
      const int64_t tasks = round % 17;
      std::vector<std::atomic<int>> runs(static_cast<size_t>(tasks));
      std::atomic<bool> worker_in_range{true};
      pool.run(tasks, [&](int64_t task) {
        runs[static_cast<size_t>(task)].fetch_add(1);
        const int worker = covenant::ThreadPool::worker();
        if (worker < 0 || worker >= threads) worker_in_range.store(false);
      });
      for (const std::atomic<int>& count : runs) CHECK(count.load() == 1);
      CHECK(worker_in_range.load());
    }
  }
  // Four times as many busy threads as cores: helpers stop in the middle of tasks, and the pool
  // goes on alone and back again. Every task still runs once.
  {
    std::atomic<bool> stop{false};
    std::vector<std::thread> busy;
    for (unsigned i = 0; i < 4 * std::max(1u, std::thread::hardware_concurrency()); ++i)
      busy.emplace_back([&] {
        while (!stop.load(std::memory_order_relaxed)) {
        }
      });
    covenant::ThreadPool pool(3);
    bool once = true;
    for (int round = 0; round < 400; ++round) {
      std::vector<std::atomic<int>> runs(24);
      pool.run(24, [&](int64_t task) {
        volatile double work = 1;
        for (int i = 0; i < 2000; ++i) work = work * 1.0000001;
        runs[static_cast<size_t>(task)].fetch_add(1);
      });
      for (const std::atomic<int>& count : runs) once = once && count.load() == 1;
    }
    CHECK(once);
    stop.store(true);
    for (std::thread& thread : busy) thread.join();
  }
  // Two pools used by two threads at once do not disturb each other.
  std::thread other([] {
    covenant::ThreadPool pool(2);
    std::atomic<int64_t> sum{0};
    for (int i = 0; i < 200; ++i) pool.run(10, [&](int64_t task) { sum += task; });
    CHECK(sum.load() == 200 * 45);
  });
  covenant::ThreadPool pool(3);
  std::atomic<int64_t> sum{0};
  for (int i = 0; i < 200; ++i) pool.run(20, [&](int64_t task) { sum += task; });
  other.join();
  CHECK(sum.load() == 200 * 190);
  CHECK(covenant::default_thread_count() >= 1);
  TEST_MAIN_END("thread_pool_test");
}
