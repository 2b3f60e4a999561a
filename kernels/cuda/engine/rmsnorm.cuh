// RMSNorm over rows of a matrix. Tier A: the bits of the CPU's rmsnorm (src/engine/rowwise.h).
#pragma once

#include "engine/operand.cuh"
#include "runtime/device.h"

namespace covenant::cuda {

// y = x * r * gain; r (rows, may be null) = 1 / sqrt(mean(x^2) + eps). `index` (may be null) names the row of x
// that each row of y comes from.
void rmsnorm(Stream stream, const float* x, const int32_t* index, const float* gain, float eps,
             int64_t rows, int64_t d, Rows y, float* r);

// dx = dres + J^T dy (dx may be dres; no dres: zeros); dgain += its gradient, summed over blocks of
// 32 rows, then over the blocks, in order. `index` names the rows of x, dres and dx. `rounded` (may be
// null) gets dx in bf16.
void rmsnorm_backward(Stream stream, const float* x, const int32_t* index, const float* gain,
                      const float* r, Rows dy, const float* dres, int64_t rows, int64_t d,
                      float* dx, float* dgain, float* partials, uint16_t* rounded = nullptr);

inline int64_t rmsnorm_partials_size(int64_t rows, int64_t d) { return (rows + 31) / 32 * d; }

}  // namespace covenant::cuda
