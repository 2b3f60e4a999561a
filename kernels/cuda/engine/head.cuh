// What is read off rows of logits: log-probs, entropy and, in place, the gradient. Tier A.
#pragma once

#include "engine/operand.cuh"
#include "runtime/device.h"

namespace covenant::cuda {

// Each array by row of the chunk.
struct HeadRows {
  int64_t rows, vocab;
  const int32_t* targets;
  float inverse_temperature;
  float* log_probs;
  float* entropy;
  int32_t* non_finite;  // set to 1 when a row's sum is not finite
  double* log_sums;     // log of the sum of exponentials; null: not wanted
};

// By scored row, on the device.
struct HeadResults {
  float *log_probs, *entropy;
  int32_t top_count = 0;  // most probable tokens of each row
  int32_t* top_tokens = nullptr;
  float* top_log_probs = nullptr;
};

// z (rows, vocab) is left as it is.
void score_logits(Stream stream, const HeadRows& rows, const float* z);

// The same, then dz = c (delta - softmax) * inverse_temperature in place of z, and rounded to dz16 when
// that is not null; c = coefficients[row], or `constant` when there are none.
void score_logits_backward(Stream stream, const HeadRows& rows, float* z, uint16_t* dz16,
                           const float* coefficients, float constant);

}  // namespace covenant::cuda
