// h = silu(gate) * up over rows (gate | up). Tier A.
#pragma once

#include "engine/operand.cuh"
#include "runtime/device.h"

namespace covenant::cuda {

void swiglu(Stream stream, const float* gate_up, int64_t rows, int64_t f, Rows h);

// h again, which may replace dh (rows, f), and the gradient dgate_up (rows, 2 f).
void swiglu_backward(Stream stream, const float* gate_up, const float* dh, int64_t rows, int64_t f,
                     float* h, float* dgate_up);

// The same of numbers in bf16, with fp32 in between.
void swiglu_bf16(Stream stream, const uint16_t* gate_up, int64_t rows, int64_t f, uint16_t* h);
void swiglu_bf16_backward(Stream stream, const uint16_t* gate_up, const uint16_t* dh, int64_t rows,
                          int64_t f, uint16_t* h, uint16_t* dgate_up);

}  // namespace covenant::cuda
