// Products in bf16 of few rows, as generation makes them. Tier B, and the bits of the product of any number of
// rows (gemm_bf16.cuh): the same instruction adds up the same sixteens of k in the same order.
#pragma once

#include "engine/gemm_bf16.cuh"

namespace covenant::cuda {

constexpr int64_t kFewRowsMax = 64;

// At most kFewRowsMax rows, without `hidden`; both operands along k, at starts, strides and k that are
// multiples of 8 elements.
void multiply_few_rows(Stream stream, const ProductBf16& product);

}  // namespace covenant::cuda
