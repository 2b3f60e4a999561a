// What the projections of all devices agree on (covenant/activation.h).
#pragma once

#include <cstdint>

#include "covenant/activation.h"

namespace covenant::codec {

// COV_INVALID_ARGUMENT for an impossible shape or a missing part, COV_OUT_OF_RANGE for a token
// beyond the table.
cov_status check_projection(const cov_projection& projection, const int32_t* tokens, int32_t rows);

}  // namespace covenant::codec
