// Status values: the only error channel of the C API.
#include "covenant/status.h"

#include <cstdarg>
#include <cstdio>

extern "C" cov_status cov_ok(void) {
  cov_status status;
  status.code = COV_OK;
  status.message[0] = '\0';
  return status;
}

extern "C" cov_status cov_error(cov_code code, const char* format, ...) {
  cov_status status;
  status.code = code;
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(status.message, sizeof status.message, format, arguments);
  va_end(arguments);
  return status;
}

extern "C" const char* cov_code_name(int32_t code) {
  switch (code) {
    case COV_OK:
      return "OK";
    case COV_INVALID_ARGUMENT:
      return "INVALID_ARGUMENT";
    case COV_OUT_OF_RANGE:
      return "OUT_OF_RANGE";
    case COV_NON_FINITE:
      return "NON_FINITE";
    case COV_OUT_OF_MEMORY:
      return "OUT_OF_MEMORY";
    case COV_MEMORY_LIMIT:
      return "MEMORY_LIMIT";
    case COV_CANCELLED:
      return "CANCELLED";
    case COV_FAILED_PRECONDITION:
      return "FAILED_PRECONDITION";
    case COV_MALFORMED:
      return "MALFORMED";
    case COV_UNSUPPORTED:
      return "UNSUPPORTED";
    case COV_BUSY:
      return "BUSY";
    default:
      return "INTERNAL";
  }
}
