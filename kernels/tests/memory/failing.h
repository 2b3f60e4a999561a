// Makes the n-th allocation of the process fail, once or for good. Included by one source of a
// test: it replaces operator new and aligned_alloc, the two ways in which the kernels get memory.
#pragma once

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <new>

#include "../check.h"
#include "covenant/status.h"

namespace covenant_test {

enum class Failing { kOnce, kFromThere };

inline std::atomic<int64_t> until_failure{-1};  // allocations that still work; negative: all
inline std::atomic<bool> fails_for_good{false};
inline std::atomic<int64_t> refused{0};
inline std::atomic<int64_t> live{0};  // blocks of operator new, to see what was not freed

inline bool refuse() {
  if (until_failure.load(std::memory_order_relaxed) < 0) return false;
  const int64_t left = until_failure.fetch_sub(1);
  if (left > 0) return false;
  if (fails_for_good.load()) until_failure.store(0);
  refused.fetch_add(1);
  return left == 0 || fails_for_good.load();
}

// Not inlined: a compiler that saw both would take operator delete for the wrong match of malloc.
[[gnu::noinline]] inline void* get(std::size_t size) noexcept {
  if (refuse()) return nullptr;
  void* data = std::malloc(size == 0 ? 1 : size);
  if (data != nullptr) live.fetch_add(1, std::memory_order_relaxed);
  return data;
}

[[gnu::noinline]] inline void give_back(void* data) noexcept {
  if (data == nullptr) return;
  live.fetch_sub(1, std::memory_order_relaxed);
  std::free(data);
}

// Calls `prepare`, then `call` with the n-th allocation failing, for every n until none is left to
// fail. A call either fails with COV_OUT_OF_MEMORY and leaves what `untouched` compares, or does
// its work; after a failure the same call does its work. `right` says whether the work is right.
struct Sweep {
  const char* name;
  std::function<void()> prepare;
  std::function<cov_status()> call;
  std::function<bool()> untouched;
  std::function<bool()> right;
};

inline int64_t points_of(const Sweep& sweep) {
  int64_t points = 0;
  for (const Failing kind : {Failing::kOnce, Failing::kFromThere}) {
    for (int64_t n = 0;; ++n) {
      sweep.prepare();
      refused.store(0);
      fails_for_good.store(kind == Failing::kFromThere);
      until_failure.store(n);
      const cov_status status = sweep.call();
      until_failure.store(-1);
      if (refused.load() == 0) {
        CHECK_OK(status);
        break;
      }
      ++points;
      const int failures_before = failures;
      if (status.code != COV_OK) {
        CHECK_CODE(status, COV_OUT_OF_MEMORY);
        CHECK(status.message[0] != '\0');
        CHECK(sweep.untouched());
        CHECK_OK(sweep.call());
      }
      CHECK(sweep.right());
      if (failures != failures_before)
        std::fprintf(stderr, "  in %s, allocation %lld, status %d: %s\n", sweep.name,
                     static_cast<long long>(n), status.code, status.message);
    }
  }
  std::printf("%s: %lld points of failure\n", sweep.name, static_cast<long long>(points));
  return points;
}

inline void run(const Sweep& sweep) { CHECK(points_of(sweep) > 0); }

// For calls that may do without memory.
inline void run_if_it_allocates(const Sweep& sweep) { points_of(sweep); }

}  // namespace covenant_test

// noinline: the compiler must not pair these with the library's own versions.
[[gnu::noinline]] void* operator new(std::size_t size) {
  void* data = covenant_test::get(size);
  if (data == nullptr) throw std::bad_alloc();
  return data;
}
void* operator new[](std::size_t size) { return operator new(size); }
[[gnu::noinline]] void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  return covenant_test::get(size);
}
void* operator new[](std::size_t size, const std::nothrow_t&) noexcept {
  return covenant_test::get(size);
}
[[gnu::noinline]] void operator delete(void* data) noexcept { covenant_test::give_back(data); }
void operator delete[](void* data) noexcept { covenant_test::give_back(data); }
void operator delete(void* data, std::size_t) noexcept { covenant_test::give_back(data); }
void operator delete[](void* data, std::size_t) noexcept { covenant_test::give_back(data); }
void operator delete(void* data, const std::nothrow_t&) noexcept {
  covenant_test::give_back(data);
}
void operator delete[](void* data, const std::nothrow_t&) noexcept {
  covenant_test::give_back(data);
}

extern "C" void* aligned_alloc(std::size_t alignment, std::size_t size) noexcept {
  void* data = nullptr;
  if (covenant_test::refuse() || posix_memalign(&data, alignment, size) != 0) {
    errno = ENOMEM;
    return nullptr;
  }
  return data;
}
