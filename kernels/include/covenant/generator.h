// A long-lived generator: requests join and leave while others are decoded.
//
// Threads: a generator belongs to its model and follows its rule: one thread at a time for the
// model and its generators together.
//
// Determinism: what a request yields depends on the request and the weights alone: not on the other
// requests, on when it joined, on the number of threads, or on the limits below. cov_model_generate,
// a generator and cov_model_replay agree bit for bit under the same weight type, on every CPU path.
//
// Memory: keys and values live in pages of 16 positions, page_bytes each. Sequences that begin
// alike share pages (copied when written), so that a prompt which several requests have in common is
// computed once. When no page is left, the youngest sequence gives its pages up and is computed
// again later: slower, same result. All of it counts towards the model's memory limit.
#ifndef COVENANT_GENERATOR_H
#define COVENANT_GENERATOR_H

#include <stdint.h>

#include "covenant/model.h"
#include "covenant/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct cov_generator cov_generator;

typedef struct cov_generator_options {
  int32_t weights;     // a cov_weight_type
  int32_t max_batch;   // sequences that are computed in turn; 0: 32, at most 1024
  int32_t step_rows;   // rows of one step: a long prompt is cut into chunks; 0: 256, at most 65536
  int64_t page_limit;  // pages at once; 0: as many as the model's memory limit allows
  // Requests at once, computed and waiting; 0: 4096, at most 2^20. What is more is COV_BUSY.
  int32_t request_limit;
} cov_generator_options;

// Takes a snapshot of the parameters in the wanted type and retains the model. *generator is NULL on
// error.
cov_status cov_generator_create(cov_model* model, const cov_generator_options* options,
                                cov_generator** generator);

// Forgets all requests and gives everything back. NULL does nothing.
void cov_generator_release(cov_generator* generator);

// Takes a new snapshot of the parameters. COV_FAILED_PRECONDITION unless idle.
cov_status cov_generator_refresh(cov_generator* generator);

// Queues a request; everything is copied. fingerprint may be NULL. COV_MEMORY_LIMIT when the request
// may need more pages than there can be; COV_BUSY when request_limit requests have not ended yet.
cov_status cov_generator_submit(cov_generator* generator, const cov_generate_request* request,
                                const cov_fingerprint_options* fingerprint, int32_t top_count,
                                uint64_t* id);

// The request leaves at once, without a further event. COV_OUT_OF_RANGE when it has already ended.
cov_status cov_generator_cancel(cov_generator* generator, uint64_t id);

typedef struct cov_generator_event {
  uint64_t request;
  int32_t index;              // of the token in its completion
  int32_t token;              // -1 when the request failed
  float log_prob;             // before temperature, top-k and top-p
  const int8_t* fingerprint;  // dims bytes, or NULL; pointers are valid during the callback
  const int32_t* top_tokens;  // top_count, or NULL
  const float* top_log_probs;
  int32_t finish_reason;  // a cov_finish_reason; the request is gone unless COV_FINISH_NOT_YET
  cov_status status;      // COV_OK but for COV_FINISH_FAILED
} cov_generator_event;

// Must not call the generator.
typedef void (*cov_generator_callback)(void* context, const cov_generator_event* event);

// One step: at most one token for each sequence, in order of their age. *active (may be NULL) is the
// number of requests that have not ended. An error leaves all requests as they were.
cov_status cov_generator_step(cov_generator* generator, cov_generator_callback callback,
                              void* context, int32_t* active);

typedef struct cov_generator_state {
  int32_t running, waiting;  // requests
  int64_t pages, page_limit;
  uint64_t page_bytes;
  uint64_t weight_bytes;
  int64_t computed_rows;  // positions computed so far
  int64_t shared_rows;    // positions taken over from another sequence instead
  int64_t preemptions;
} cov_generator_state;

cov_generator_state cov_generator_get_state(const cov_generator* generator);

#ifdef __cplusplus
}
#endif
#endif
