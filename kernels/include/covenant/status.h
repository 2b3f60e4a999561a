// Result of every call in the C API: a code and one sentence. Returned by value, so that no call
// needs an error object to be freed and no exception crosses the boundary.
#ifndef COVENANT_STATUS_H
#define COVENANT_STATUS_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum cov_code {
  COV_OK = 0,
  COV_INVALID_ARGUMENT = 1,     // a shape, length or option that can never be valid
  COV_OUT_OF_RANGE = 2,         // a token or position outside the model's range
  COV_NON_FINITE = 3,           // NaN or infinity in weights, gradients or results
  COV_OUT_OF_MEMORY = 4,        // the system refused an allocation
  COV_MEMORY_LIMIT = 5,         // the model's own memory_limit_bytes would be exceeded
  COV_CANCELLED = 6,            // the caller's cancellation flag was set
  COV_FAILED_PRECONDITION = 7,  // for example backward without a kept forward
  COV_MALFORMED = 8,            // bytes that do not follow their format
  COV_UNSUPPORTED = 9,          // this machine cannot do what was asked
  COV_INTERNAL = 10,            // a defect in this library
  COV_BUSY = 11                 // a queue is full; the same call may succeed later
} cov_code;

// `code` is a cov_code; `message` is empty when code is COV_OK, always NUL-terminated.
typedef struct cov_status {
  int32_t code;
  char message[248];
} cov_status;

// The success value.
cov_status cov_ok(void);

// A status with a printf-style message, truncated to fit.
#if defined(__GNUC__)
__attribute__((format(printf, 2, 3)))
#endif
cov_status cov_error(cov_code code, const char* format, ...);

// Stable upper-case name of a code ("INVALID_ARGUMENT"), for error mapping in bindings.
const char* cov_code_name(int32_t code);

#ifdef __cplusplus
}
#endif
#endif
