// The kernel table of the including file's instruction set, a constant.
#pragma once

#include "engine/isa/gemm.h"
#include "engine/isa/rows.h"

namespace covenant {
namespace COV_ISA {

static constexpr KernelTable kTable = {
    COV_ISA_NAME, gemm,          pack_transposed, pack_panel,      rmsnorm,        rmsnorm_backward,
    rope,         rope_backward, swiglu,          swiglu_backward, softmax,        softmax_backward,
    dot,          square_sum,    add_row,         logit_stats,     logit_gradient, sample_weights,
    adamw,        exp_row};

}  // namespace COV_ISA
}  // namespace covenant
