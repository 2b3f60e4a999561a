// Choice of the CPU path: the best one the machine has, or a forced one.
#include <atomic>
#include <cstdlib>
#include <cstring>

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

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

bool cpu_has_avx512bf16() {
#if defined(__x86_64__)
  unsigned a = 0, b = 0, c = 0, d = 0;
  return cpu_has_avx512() && __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a >> 5 & 1u) != 0;
#else
  return false;
#endif
}

// Tiles are usable when the CPU has them, the system saves them (XCR0 bits 17 and 18) and has
// granted them to this process.
bool cpu_has_amx() {
#if defined(__x86_64__) && defined(__linux__)
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!cpu_has_avx512bf16() || __get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return false;
  if ((d >> 22 & 1u) == 0 || (d >> 24 & 1u) == 0) return false;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0 || (c >> 27 & 1u) == 0) return false;  // no XGETBV
  unsigned low = 0, high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  if ((low >> 17 & 3u) != 3u) return false;
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // arch_prctl
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

// nullptr when the name is unknown or the machine lacks the instructions.
const KernelTable* find(const char* name) {
  if (std::strcmp(name, "amx") == 0 && cpu_has_amx()) return kernels_amx();
  if (std::strcmp(name, "avx512bf16") == 0 && cpu_has_avx512bf16()) return kernels_avx512bf16();
  if (std::strcmp(name, "avx512") == 0 && cpu_has_avx512()) return kernels_avx512();
  if (std::strcmp(name, "avx2") == 0 && cpu_has_avx2()) return kernels_avx2();
  if (std::strcmp(name, "portable") == 0) return kernels_portable();
  return nullptr;
}

const KernelTable* best() {
  for (const char* name : {"amx", "avx512bf16", "avx512", "avx2"})
    if (const KernelTable* table = find(name)) return table;  // null: not compiled in
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
