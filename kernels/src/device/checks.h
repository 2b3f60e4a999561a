// Checks of arguments that the engines on one device and on several have in common.
#pragma once

#include "covenant/device_model.h"

namespace covenant::device {

cov_status check_batch(const cov_model_shape& shape, const cov_batch* batch);
// `parameters`: length of a buffer.
cov_status check_range(uint64_t parameters, int32_t which, uint64_t offset, uint64_t count,
                       const float* values);
cov_status check_adamw(const cov_adamw_options* options);
cov_status check_forward(const cov_model_shape& shape, const cov_forward_options* options,
                         const cov_forward_output* output);
cov_status check_coefficients(const float* coefficients, uint64_t count);

}  // namespace covenant::device
