// Causal grouped-query attention in bf16, in one pass over the keys: scores stay on the chip. Tier B:
// sums, softmax and its running maximum are in fp32; probabilities and their gradients are rounded to
// bf16 for the products. A row's result does not depend on what is computed with it, nor on later positions,
// numbers that are not finite included; the gradient of a query neither (keys and values of one tile share the
// NaN of a gradient).
#pragma once

#include "engine/attention.cuh"

namespace covenant::cuda {

// Widest head; wider ones go through the fp32 form.
constexpr int64_t kFusedDimMax = 128;

// qkv (rows, width) and out (rows, heads * dim); lse (rows, heads), in base 2 of scaled scores.
void attention_bf16(Device& device, const AttentionRows& rows, const uint16_t* qkv, uint16_t* out,
                    float* lse);

// dqkv (rows, width), every element of it. Each sum has one order: a block owns its queries, or its keys
// with all heads of the group, and scores are computed twice.
void attention_bf16_backward(Device& device, const AttentionRows& rows, const uint16_t* qkv,
                             const uint16_t* out, const float* lse, const uint16_t* dout,
                             uint16_t* dqkv);

}  // namespace covenant::cuda
