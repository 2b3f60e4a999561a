// Choice of the CPU path: the best one the machine has, or a forced one.
#include <atomic>
#include <cstdlib>
#include <cstring>

#include "covenant/model.h"
#include "engine/isa/table.h"

namespace covenant {
namespace {

bool cpu_has_avx2() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
  return false;
#endif
}

bool cpu_has_avx512() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_cpu_init();
  return cpu_has_avx2() && __builtin_cpu_supports("avx512f") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512cd");
#else
  return false;
#endif
}

// nullptr when the name is unknown or the machine lacks the instructions.
const KernelTable* find(const char* name) {
  if (std::strcmp(name, "avx512") == 0 && cpu_has_avx512()) return kernels_avx512();
  if (std::strcmp(name, "avx2") == 0 && cpu_has_avx2()) return kernels_avx2();
  if (std::strcmp(name, "portable") == 0) return kernels_portable();
  return nullptr;
}

const KernelTable* best() {
  for (const char* name : {"avx512", "avx2"})
    if (const KernelTable* table = find(name)) return table;
  return kernels_portable();
}

const KernelTable* initial() {
  const char* forced = std::getenv("COVENANT_CPU_PATH");
  const KernelTable* table = forced != nullptr ? find(forced) : nullptr;
  return table != nullptr ? table : best();
}

std::atomic<const KernelTable*> current{nullptr};

}  // namespace

const KernelTable& kernels() {
  const KernelTable* table = current.load(std::memory_order_acquire);
  if (table == nullptr) {
    table = initial();  // every racing thread computes the same
    current.store(table, std::memory_order_release);
  }
  return *table;
}

}  // namespace covenant

extern "C" cov_status cov_set_cpu_path(const char* name) {
  const covenant::KernelTable* table =
      name == nullptr || *name == '\0' ? covenant::best() : covenant::find(name);
  if (table == nullptr)
    return cov_error(COV_UNSUPPORTED, "CPU path '%s' is unknown or not available here", name);
  covenant::current.store(table, std::memory_order_release);
  return cov_ok();
}

extern "C" const char* cov_cpu_path(void) { return covenant::kernels().name; }
