// The optimizer step shared by cov_model_optimizer_step and cov_model_train_step.
#pragma once

#include <array>

#include "engine/isa/table.h"
#include "engine/model.h"

namespace covenant {

// Throws Failure unless betas, epsilon, decay and clip make sense.
void check_optimizer(const cov_adamw_options* options);

// What step number `step` (from 1) multiplies with, given the norm of the gradients.
AdamwScalars adamw_scalars(const cov_adamw_options& options, int64_t step, double norm);

// One AdamW step from the gradients, which are then zero; returns the norm before clipping. Throws
// COV_NON_FINITE (gradients cleared, nothing else changed) when the norm is not finite.
double optimizer_step(cov_model& model, const cov_adamw_options& options);

// The same over flat buffers of their own, indexed by cov_buffer, decay on all of it, as step number
// `step`.
double adamw_step(cov_model& model, const std::array<float*, 4>& buffers, int64_t count,
                  int64_t step, const cov_adamw_options& options);

// Zeroes the gradients if they exist.
void clear_gradients(cov_model& model);

}  // namespace covenant
