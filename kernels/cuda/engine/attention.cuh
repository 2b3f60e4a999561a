// Causal grouped-query attention over rows of (q | k | v) in fp32, by blocks of matrix products. Tier A:
// the bits of the CPU's attention (src/engine/attention.h), forward and backward, whatever rows are
// computed together.
#pragma once

#include "engine/attention.h"
#include "runtime/device.h"

namespace covenant::cuda {

// `sequences` of `length` rows each, one after the other.
struct AttentionRows {
  AttentionShape shape;
  int64_t sequences, length;
};

// out (rows, heads * dim); lse (rows, heads). Takes scratch memory from the device.
void attention(Device& device, const AttentionRows& rows, const float* qkv, float* out, float* lse);

// dqkv (rows, width) from dout; keys and values get their sums over the heads of a group and over the
// queries in order, without atomics.
void attention_backward(Device& device, const AttentionRows& rows, const float* qkv,
                        const float* out, const float* lse, const float* dout, float* dqkv);

}  // namespace covenant::cuda
