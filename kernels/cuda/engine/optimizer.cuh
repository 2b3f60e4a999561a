// AdamW and the gradient norm. Tier A: equal gradients give the CPU's bits (src/engine/optimizer.cc).
#pragma once

#include <vector>

#include "engine/isa/table.h"
#include "runtime/device.h"

namespace covenant::cuda {

// Part of one tensor, at most kAdamwChunk parameters.
struct AdamwRange {
  int64_t first;
  int32_t count;
  int32_t decay;  // 0: none
};
constexpr int64_t kAdamwChunk = 1 << 14;

// Sums of squares of chunks of kAdamwChunk gradients: doubles of fp32 sums over 256. The norm is the
// root of their sum in order, which the host takes.
void square_sums(Stream stream, const float* gradients, int64_t count, double* sums);

// One step over all ranges; gradients are zero after it. `shadow` (may be null) gets the new
// parameters in bf16.
void adamw(Stream stream, const AdamwRange* ranges, int64_t range_count, float* p, float* g,
           float* m, float* v, uint16_t* shadow, const AdamwScalars& scalars);

// shadow = x in bf16, and back.
void to_bf16(Stream stream, const float* x, int64_t count, uint16_t* shadow);
void to_f32(Stream stream, const uint16_t* x, int64_t count, float* out);

}  // namespace covenant::cuda
