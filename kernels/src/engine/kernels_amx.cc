// Inner kernels for amx: those of avx512bf16 with products of bf16 pairs on tiles; compiled with
// that instruction set's flags, called only where it exists and the system has granted the tiles.
#if defined(__AMX_TILE__) && defined(__AMX_BF16__) && defined(__AVX512BF16__)
// GCC 12's own intrinsics start from a deliberately undefined value.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#define COV_ISA isa_amx
#define COV_ISA_NAME "amx"
#define COV_SIMD 512
#define COV_BF16_NATIVE
#define COV_AMX
#include "engine/isa/fill_table.h"

namespace covenant {
const KernelTable* kernels_amx() { return &COV_ISA::kTable; }
}  // namespace covenant

#else
#include "engine/isa/table.h"

namespace covenant {
const KernelTable* kernels_amx() { return nullptr; }
}  // namespace covenant
#endif
