// Inner kernels for avx512bf16: those of avx512 with products of bf16 pairs; compiled with that
// instruction set's flags, called only where it exists.
#if defined(__AVX512F__) && defined(__AVX512DQ__) && defined(__AVX512BF16__)
// GCC 12's own intrinsics start from a deliberately undefined value.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#define COV_ISA isa_avx512bf16
#define COV_ISA_NAME "avx512bf16"
#define COV_SIMD 512
#define COV_BF16_NATIVE
#include "engine/isa/fill_table.h"

namespace covenant {
const KernelTable* kernels_avx512bf16() { return &COV_ISA::kTable; }
}  // namespace covenant

#else
#include "engine/isa/table.h"

namespace covenant {
const KernelTable* kernels_avx512bf16() { return nullptr; }
}  // namespace covenant
#endif
