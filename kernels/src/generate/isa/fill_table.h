// The generation kernels of the including file's instruction set, a constant.
#pragma once

#include "generate/isa/attention.h"
#include "generate/isa/int8.h"
#include "generate/isa/linear.h"

namespace covenant {
namespace COV_ISA {

static constexpr GenerationKernels kTable = {
    COV_ISA_NAME,   linear_f32,       linear_bf16,
    linear_int8,    quantise,         {scores<float>, scores<uint16_t>},
    softmax_row,    {weighted<float>, weighted<uint16_t>},
    largest_of};

}  // namespace COV_ISA
}  // namespace covenant
