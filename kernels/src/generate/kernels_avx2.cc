// Generation kernels for avx2.
#if defined(__AVX2__)
#define COV_ISA isa_generate_avx2
#define COV_ISA_NAME "avx2"
#define COV_SIMD 256
#define COV_VNNI 0
#include "generate/isa/fill_table.h"

namespace covenant {
const GenerationKernels* generation_kernels_avx2() { return &COV_ISA::kTable; }
}  // namespace covenant

#else
#include "generate/kernels.h"

namespace covenant {
const GenerationKernels* generation_kernels_avx2() { return nullptr; }
}  // namespace covenant
#endif
