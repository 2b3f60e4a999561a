// The one pass over memory of compress: error feedback plus pseudo-gradient.
#pragma once

#include <cstdint>

namespace covenant::sparse {

// e[i] = fma(beta, e[i], base[i] - current[i]) for i in [0, n). Returns the largest |e[i]| as fp32
// bits; 0x7f800000 or more means that some value is not finite. Every path gives the same bits.
using AccumulateFunction = uint32_t (*)(const float* base, const float* current, float beta,
                                        float* e, int32_t n);

uint32_t accumulate_portable(const float* base, const float* current, float beta, float* e,
                             int32_t n);
uint32_t accumulate_avx2(const float* base, const float* current, float beta, float* e, int32_t n);
uint32_t accumulate_avx512(const float* base, const float* current, float beta, float* e,
                           int32_t n);

// The fastest path of this machine.
AccumulateFunction accumulate_function();

}  // namespace covenant::sparse
