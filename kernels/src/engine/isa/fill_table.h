// The kernel table of the including file's instruction set, a constant.
#pragma once

#if defined(COV_AMX)
#include "engine/isa/amx.h"
#endif
#include "engine/isa/bf16_transposed.h"
#include "engine/isa/gemm.h"
#include "engine/isa/pack.h"
#include "engine/isa/rows.h"

namespace covenant {
namespace COV_ISA {

static constexpr KernelTable kTable = {.name = COV_ISA_NAME,
                                      .gemm = gemm,
                                      .pack_transposed = pack_transposed,
                                      .pack_panel = pack_panel,
                                      .round_bf16 = round_bf16,
                                      .gemm_bf16 = gemm_bf16,
                                      .gemm_bf16_transposed = gemm_bf16_transposed,
                                      .pack_transposed_bf16 = pack_transposed_bf16,
                                      .pack_panel_bf16 = pack_panel_bf16,
                                      .zip_panel_bf16 = zip_panel_bf16,
                                      .rmsnorm_bf16 = rmsnorm<Bf16>,
                                      .swiglu_bf16 = swiglu<Bf16>,
                                      .swiglu_backward_bf16 = swiglu_backward<Bf16>,
                                      .logit_gradient_bf16 = logit_gradient<Bf16>,
                                      .softmax_bf16 = softmax<Bf16>,
                                      .softmax_backward_bf16 = softmax_backward<Bf16>,
                                      .rmsnorm = rmsnorm<float>,
                                      .rmsnorm_backward = rmsnorm_backward,
                                      .rope = rope,
                                      .rope_backward = rope_backward,
                                      .swiglu = swiglu<float>,
                                      .swiglu_backward = swiglu_backward<float>,
                                      .softmax = softmax<float>,
                                      .softmax_backward = softmax_backward<float>,
                                      .dot = dot,
                                      .square_sum = square_sum,
                                      .add = add_row,
                                      .logit_stats = logit_stats,
                                      .logit_gradient = logit_gradient<float>,
                                      .sample_weights = sample_weights,
                                      .adamw = adamw,
                                      .exp = exp_row};

}  // namespace COV_ISA
}  // namespace covenant
