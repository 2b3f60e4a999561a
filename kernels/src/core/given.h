// Pointers that a call cannot do without.
#pragma once

#include <cstdint>

#include "covenant/status.h"

namespace covenant {

// COV_INVALID_ARGUMENT with the names of all when one of them is null.
template <typename... T>
cov_status given(const char* names, const T*... pointers) {
  if ((... && (pointers != nullptr))) return cov_ok();
  return cov_error(COV_INVALID_ARGUMENT, "%s must be given", names);
}

// A buffer may be null where nothing is read from it or written to it.
inline const void* unless_empty(const void* buffer, int64_t count) {
  return count == 0 ? "" : buffer;
}

}  // namespace covenant
