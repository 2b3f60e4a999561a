#include "sparse/accumulate.h"

#if defined(__x86_64__)

namespace covenant::sparse {

uint32_t accumulate_avx512(const float* base, const float* current, float beta, float* e,
                           int32_t n) {
#include "sparse/accumulate_loop.inc"
}

}  // namespace covenant::sparse

#endif
