// The pool runs every task once, from any number of threads, again and again.
#include "core/thread_pool.h"

#include <atomic>
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
