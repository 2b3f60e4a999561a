#include "sparse/accumulate.h"

namespace covenant::sparse {

uint32_t accumulate_portable(const float* base, const float* current, float beta, float* e,
                             int32_t n) {
#include "sparse/accumulate_loop.inc"
}

AccumulateFunction accumulate_function() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl"))
    return accumulate_avx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return accumulate_avx2;
#endif
  return accumulate_portable;
}

}  // namespace covenant::sparse
