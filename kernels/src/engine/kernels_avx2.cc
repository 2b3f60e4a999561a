// Inner kernels for avx2; compiled with that instruction set's flags, called only where it exists.
#if defined(__AVX2__) && defined(__FMA__)
#define COV_ISA isa_avx2
#define COV_ISA_NAME "avx2"
#define COV_SIMD 256
#include "engine/isa/fill_table.h"

namespace covenant {
const KernelTable* kernels_avx2() { return &COV_ISA::kTable; }
}  // namespace covenant

#else
#include "engine/isa/table.h"

namespace covenant {
const KernelTable* kernels_avx2() { return nullptr; }
}  // namespace covenant
#endif
