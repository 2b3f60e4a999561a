// Which generation kernels belong to the engine's path.
#include <cstring>

#include "engine/isa/table.h"
#include "generate/kernels.h"

namespace covenant {
namespace {

#if defined(__x86_64__) || defined(__i386__)
bool has(const char* name) {
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (std::strcmp(name, "avx2") == 0) return avx2;
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512cd");
  if (std::strcmp(name, "avx512") == 0) return avx512;
  return avx512 && __builtin_cpu_supports("avx512vnni");
}
#else
bool has(const char*) { return false; }
#endif

}  // namespace

const GenerationKernels* generation_kernels_named(const char* name) {
  if (std::strcmp(name, "portable") == 0) return generation_kernels_portable();
  if (!has(name)) return nullptr;
  if (std::strcmp(name, "avx2") == 0) return generation_kernels_avx2();
  if (std::strcmp(name, "avx512") == 0) return generation_kernels_avx512();
  if (std::strcmp(name, "avx512vnni") == 0) return generation_kernels_avx512vnni();
  return nullptr;
}

const GenerationKernels& generation_kernels() {
  const char* path = kernels().name;
  const GenerationKernels* table = nullptr;
  if (std::strcmp(path, "portable") == 0) return *generation_kernels_portable();
  // Every path above AVX2 has at least AVX-512.
  if (std::strcmp(path, "avx2") != 0) {
    table = generation_kernels_named("avx512vnni");
    if (table == nullptr) table = generation_kernels_named("avx512");
  }
  if (table == nullptr) table = generation_kernels_named("avx2");
  return table != nullptr ? *table : *generation_kernels_portable();
}

}  // namespace covenant
