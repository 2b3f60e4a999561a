#include "device/checks.h"

#include <cmath>

#include "engine/head.h"
#include "engine/model.h"
#include "engine/optimizer.h"

namespace covenant::device {

cov_status check_batch(const cov_model_shape& shape, const cov_batch* batch) {
  if (batch == nullptr || batch->tokens == nullptr || batch->targets == nullptr)
    return cov_error(COV_INVALID_ARGUMENT, "batch, tokens and targets must be given");
  if (batch->sequences < 1 || batch->sequence_length < 1 || batch->sequences > (1 << 24))
    return cov_error(COV_INVALID_ARGUMENT, "a batch needs 1 or more sequences and tokens");
  if (batch->sequence_length > shape.max_positions)
    return cov_error(COV_OUT_OF_RANGE, "sequence_length %d exceeds max_positions %d",
                     batch->sequence_length, shape.max_positions);
  const int64_t count = int64_t{batch->sequences} * batch->sequence_length;
  return guarded([&] {
    check_tokens(shape, batch->tokens, count, "token");
    for (int64_t i = 0; i < count; ++i)
      if (batch->targets[i] < -1 || batch->targets[i] >= shape.vocab_size)
        return cov_error(COV_OUT_OF_RANGE, "target %lld is %d, the vocabulary has %d",
                         static_cast<long long>(i), batch->targets[i], shape.vocab_size);
    return cov_ok();
  });
}

cov_status check_range(uint64_t parameters, int32_t which, uint64_t offset, uint64_t count,
                       const float* values) {
  if ((values == nullptr && count > 0) || which < COV_PARAMETERS || which > COV_SECOND_MOMENT)
    return cov_error(COV_INVALID_ARGUMENT, "unknown buffer or null pointer");
  if (offset > parameters || count > parameters - offset)
    return cov_error(COV_OUT_OF_RANGE, "%llu floats from %llu pass the end of the buffer (%llu)",
                     static_cast<unsigned long long>(count),
                     static_cast<unsigned long long>(offset),
                     static_cast<unsigned long long>(parameters));
  return cov_ok();
}

cov_status check_adamw(const cov_adamw_options* options) {
  return guarded([&] {
    check_optimizer(options);
    return cov_ok();
  });
}

cov_status check_forward(const cov_model_shape& shape, const cov_forward_options* options,
                         const cov_forward_output* output) {
  if (options == nullptr || output == nullptr)
    return cov_error(COV_INVALID_ARGUMENT, "options and output must be given");
  return guarded([&] {
    check_forward_options(shape, *options);
    return cov_ok();
  });
}

cov_status check_coefficients(const float* coefficients, uint64_t count) {
  if (coefficients == nullptr)
    return cov_error(COV_INVALID_ARGUMENT, "coefficients must be given");
  for (uint64_t i = 0; i < count; ++i)
    if (!std::isfinite(coefficients[i]))
      return cov_error(COV_NON_FINITE, "coefficient %llu is not finite",
                       static_cast<unsigned long long>(i));
  return cov_ok();
}

}  // namespace covenant::device
