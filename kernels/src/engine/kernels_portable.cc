// Inner kernels in plain C++ with fused multiply-adds: fast on targets that always have them
// (AArch64), a slow but bit-equal reference on old x86.
#define COV_ISA isa_portable
#define COV_ISA_NAME "portable"
#define COV_SIMD 0
#include "engine/isa/fill_table.h"

namespace covenant {
const KernelTable* kernels_portable() { return &COV_ISA::kTable; }
}  // namespace covenant
