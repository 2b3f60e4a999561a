// The pool runs every task once, from any number of threads, again and again; the number of threads
// follows affinity and quotas.
#include "core/thread_pool.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <sched.h>
#endif

#include "../check.h"

namespace {

#if defined(__linux__)
// Control groups as files: the quota of the own group, of one above, of neither; v1; nonsense.
void test_quotas() {
  namespace fs = std::filesystem;
  std::string name = fs::temp_directory_path() / "covenant-quota-XXXXXX";
  CHECK(mkdtemp(name.data()) != nullptr);
  const fs::path root = name;
  fs::create_directories(root / "a/b");
  fs::create_directories(root / "cpu");
  const auto write = [&](const char* file, const char* text) { std::ofstream(root / file) << text; };
  const auto cpus = [&] { return covenant::cgroup_cpus(root.c_str(), (root / "own").c_str()); };
  CHECK(cpus() == 0);
  write("own", "1:cpu:/x\n0::/a/b\n");
  CHECK(cpus() == 0);
  write("a/b/cpu.max", "max 100000\n");
  CHECK(cpus() == 0);
  write("a/cpu.max", "250000 100000\n");
  CHECK(cpus() == 2.5);
  write("a/b/cpu.max", "50000 100000\n");
  CHECK(cpus() == 0.5);
  write("a/b/cpu.max", "400000 100000\n");
  write("cpu.max", "300000 100000\n");
  CHECK(cpus() == 2.5);
  write("own", "0::/\n");
  CHECK(cpus() == 3);
  fs::remove(root / "own");
  CHECK(cpus() == 3);
  for (const char* nonsense : {"", "max", "-1 100000", "5", "x y", "100000 0"}) {
    write("cpu.max", nonsense);
    CHECK(cpus() == 0);
  }
  write("cpu/cpu.cfs_quota_us", "150000\n");
  write("cpu/cpu.cfs_period_us", "100000\n");
  CHECK(cpus() == 1.5);
  write("cpu/cpu.cfs_quota_us", "-1\n");
  CHECK(cpus() == 0);
  fs::remove_all(root);
}

// A process that may use one CPU gets one thread, and gets more again afterwards.
void test_affinity() {
  cpu_set_t before, one;
  CHECK(sched_getaffinity(0, sizeof before, &before) == 0);
  const int usual = covenant::default_thread_count();
  CHECK(usual >= 1 && usual <= CPU_COUNT(&before));
  CPU_ZERO(&one);
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu)
    if (CPU_ISSET(cpu, &before) && CPU_COUNT(&one) == 0) CPU_SET(cpu, &one);
  CHECK(sched_setaffinity(0, sizeof one, &one) == 0);
  CHECK(covenant::default_thread_count() == 1);
  // More threads than the process may run at once: slow at worst.
  covenant::ThreadPool pool(3);
  std::atomic<int64_t> sum{0};
  for (int i = 0; i < 200; ++i) pool.run(20, [&](int64_t task) { sum += task; });
  CHECK(sum.load() == 200 * 190);
  CHECK(sched_setaffinity(0, sizeof before, &before) == 0);
  CHECK(covenant::default_thread_count() == usual);
}
#endif

}  // namespace

int main() {
#if defined(__linux__)
  test_quotas();
  test_affinity();
#endif
  for (const int threads : {1, 2, 5}) {
    covenant::ThreadPool pool(threads);
    CHECK(pool.threads() == threads);
    for (int round = 0; round < covenant_test::unless_sanitized(300, 100); ++round) {
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
    for (int round = 0; round < covenant_test::unless_sanitized(400, 100); ++round) {
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
  TEST_MAIN_END("engine/thread_pool");
}
