// A status on its way from deep inside an operation to the C API, which it never passes.
#pragma once

#include "covenant/status.h"

namespace covenant {

struct Failure {
  cov_status status;
};

}  // namespace covenant
