// Final norm, logits and what is read off them, in chunks of rows so that the logits of a large
// vocabulary never have to exist at once.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/model.h"

namespace covenant {

// Working memory, cut from `base`; with no base it only counts.
struct HeadWork {
  int64_t rows;    // of one chunk
  Operand normed;  // (rows, d)
  float* r;
  float* logits = nullptr;  // some rows for each thread; null: they are where `dlogits` will be
  Operand dlogits;          // (rows, vocab)
  float *dnormed, *zeros, *partials, *gradient_scratch;
  int64_t size;  // floats
  HeadWork(const cov_model& model, bool backward, float* base);
};
int64_t head_work_size(const cov_model& model, bool backward);

// Scored rows of one group and where their results go.
struct HeadRow {
  int64_t row;       // in the group's activations
  int64_t position;  // in the batch
  int32_t target;
};

struct HeadOutput {
  float* log_probs;  // each may be null; indexed by position
  float* entropy;
  int32_t* top_tokens;
  float* top_log_probs;
  int32_t top_count;
  float inverse_temperature;
};

// Results for the rows. With `coefficients` (indexed by position, or `constant` when null) it also
// runs the head's backward pass: dx (group rows, d) gets the gradient at `last`; rows that are not
// listed are left alone. Throws Failure when a log-prob is not finite.
void head(cov_model& model, const float* last, const std::vector<HeadRow>& rows,
          const HeadOutput& output, bool backward, const float* coefficients, float constant,
          float* dx, HeadWork& work);

// Tokens of the `count` largest logits, ties by lowest id, and their log-probs.
void top_log_probs(const float* logits, int64_t vocab, double lse, float inverse_temperature,
                   int32_t count, std::vector<int32_t>& order, int32_t* tokens, float* log_probs);

// Throws Failure unless the options are in their ranges.
void check_forward_options(const cov_model_shape& shape, const cov_forward_options& options);
// What positions that are not scored get: 0, 0, -1 and 0.
void clear_forward_output(int64_t positions, int32_t top_count, const cov_forward_output& output);

// Natural logarithm by IEEE operations only; the argument is a normal positive number.
double exact_log(double x);

}  // namespace covenant
