// The pass over memory of compress, one chunk at a time: error feedback plus pseudo-gradient, and
// the exact top-k of the result while it is in the first-level cache.
#pragma once

#include <cstdint>

namespace covenant::sparse {

// e[i] = fma(beta, e[i], base[i] - current[i]) for i in [0, n), 1 <= n <= 4096; then indices:
// those of the `kept` largest |e[i]|, ascending; equal magnitudes by lowest index. Returns the
// largest |e[i]| as fp32 bits; 0x7f800000 or more means that some value is not finite, and indices
// are then undefined.
//
// *hint: a magnitude (fp32 bits) a little below the kept-th largest. It is what the call before
// left there; a bad one costs time and never changes the result.
//
// Every path gives the same bits. room for 16 indices beyond `kept` is needed.
using GatherFunction = uint32_t (*)(const float* base, const float* current, float beta, float* e,
                                    int32_t n, int32_t kept, uint32_t* hint, uint16_t* indices);

constexpr int32_t kGatherIndexPadding = 32;

uint32_t gather_portable(const float* base, const float* current, float beta, float* e, int32_t n,
                         int32_t kept, uint32_t* hint, uint16_t* indices);
uint32_t gather_avx2(const float* base, const float* current, float beta, float* e, int32_t n,
                     int32_t kept, uint32_t* hint, uint16_t* indices);
uint32_t gather_avx512(const float* base, const float* current, float beta, float* e, int32_t n,
                       int32_t kept, uint32_t* hint, uint16_t* indices);

}  // namespace covenant::sparse
