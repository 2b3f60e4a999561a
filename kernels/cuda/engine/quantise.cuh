// Rows of fp32 as bytes with one scale each, of weights and of what is multiplied with them. Tier A: the bytes and
// scales of the CPU's int8 weights and activations (src/generate).
#pragma once

#include <cstdint>

#include "runtime/device.h"

namespace covenant::cuda {

// x (rows, k) = bytes * scale; bytes in [-127, 127], rows int8_stride(k) apart with zeros from k on. Rows of less than
// 1e-30 are zeros; one that is not finite has zeros and the scale NaN.
void quantise(Stream stream, const float* x, int64_t rows, int64_t k, int8_t* bytes, float* scales);

// The same of rows that are made first: rmsnorm(x) as in rmsnorm.cuh, and silu(gate) * up of rows (gate | up) of f
// each. `values` (rows, d or f) is room for rows that are too long to be made and read at once.
void rmsnorm_quantise(Stream stream, const float* x, const int32_t* index, const float* gain, float eps, int64_t rows,
                      int64_t d, float* values, int8_t* bytes, float* scales);
void swiglu_quantise(Stream stream, const float* gate_up, int64_t rows, int64_t f, float* values, int8_t* bytes,
                     float* scales);

// The nearest bf16, ties to even, as generation on the CPU keeps weights: subnormal numbers stay, unlike where
// products of bf16 models round.
void round_weights(Stream stream, const float* x, int64_t count, uint16_t* rounded);
// The same, widened again.
void round_weights(Stream stream, const float* x, int64_t count, float* rounded);

}  // namespace covenant::cuda
