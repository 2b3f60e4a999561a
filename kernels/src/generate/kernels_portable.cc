// Generation kernels for portable.
#define COV_ISA isa_generate_portable
#define COV_ISA_NAME "portable"
#define COV_SIMD 0
#define COV_VNNI 0
#include "generate/isa/fill_table.h"

namespace covenant {
const GenerationKernels* generation_kernels_portable() { return &COV_ISA::kTable; }
}  // namespace covenant
