// Long-lived generators on devices, as the CUDA library offers them: the same for a model on one device and on
// several, but for how they are made. Arguments are checked before.
#pragma once

#include "covenant/device_generator.h"

namespace covenant::device {

struct GeneratorTable {
  void (*release)(void* generator);
  cov_status (*refresh)(void* generator);
  cov_status (*submit)(void* generator, const cov_generate_request* request,
                       const cov_fingerprint_options* fingerprint, int32_t top_count, uint64_t* id);
  cov_status (*cancel)(void* generator, uint64_t id);
  cov_status (*step)(void* generator, cov_generator_callback callback, void* context);
  void (*state)(const void* generator, cov_generator_state* state);
};

}  // namespace covenant::device
