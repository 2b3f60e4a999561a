// The most probable tokens of rows of logits. Tier A: those of the CPU, equal logits by lowest id.
#pragma once

#include "runtime/device.h"

namespace covenant::cuda {

constexpr int32_t kTopMax = 256;

// tokens and log_probs: (rows, count), most probable first.
struct TopRows {
  int64_t rows, vocab;
  int32_t count;  // at most kTopMax, and the vocabulary
  float inverse_temperature;
  const double* log_sums;  // by row, log of the sum of exponentials
  int32_t* tokens;
  float* log_probs;
};

void top_tokens(Stream stream, const TopRows& top, const float* logits);

}  // namespace covenant::cuda
