// Generation kernels for avx512.
#if defined(__AVX512F__)
// GCC 12's own intrinsics start from a deliberately undefined value.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#define COV_ISA isa_generate_avx512
#define COV_ISA_NAME "avx512"
#define COV_SIMD 512
#define COV_VNNI 0
#include "generate/isa/fill_table.h"

namespace covenant {
const GenerationKernels* generation_kernels_avx512() { return &COV_ISA::kTable; }
}  // namespace covenant

#else
#include "generate/kernels.h"

namespace covenant {
const GenerationKernels* generation_kernels_avx512() { return nullptr; }
}  // namespace covenant
#endif
