// A long-lived generator on one CUDA device or on several: requests join and leave while others are decoded, as
// covenant/generator.h has it on the CPU. Keys, values and the layers are on the device; the schedule and the
// draws are the CPU's.
//
// Threads: as the model, of which a generator is a part.
//
// Determinism: what a request yields depends on the request and the weights alone: not on the other requests, on
// when it joined, on the limits, on CUDA graphs, or on how many devices share the work. cov_device_model_generate, a
// generator and cov_device_model_replay agree bit for bit under the same weight type. That is what cov_generator
// yields on the CPU (tier A), but for COV_WEIGHTS_F32 of a model in COV_COMPUTE_BF16, where it is the same on one type
// of device (tier B).
//
// Memory: pages of 16 positions as on the CPU, allocated in chunks. All of it counts towards the device's limit;
// activations and logits of a step are allocated when the generator is created.
//
// Errors: those of covenant/generator.h, and COV_UNSUPPORTED for a request of more than 24000 positions.
#ifndef COVENANT_DEVICE_GENERATOR_H
#define COVENANT_DEVICE_GENERATOR_H

#include <stdint.h>

#include "covenant/device_model.h"
#include "covenant/generator.h"
#include "covenant/parallel.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct cov_device_generator cov_device_generator;

// Takes a snapshot of the parameters in the wanted type, adapters in use included, and retains the model. options
// as of cov_generator_create, but step_rows 0 is 1024 here, and COV_WEIGHTS_F32 are those of the model's compute.
// *generator is NULL on error.
cov_status cov_device_generator_create(cov_device_model* model, const cov_generator_options* options,
                                       cov_device_generator** generator);

// The same on several devices. A replica has as many schedules as stages, which the stages compute in turn, so that
// several of them have work where there are requests enough. A request goes to the replica whose requests may come to
// the fewest positions, to its first schedule with fewer than max_batch requests, and shares pages with others of that
// schedule. max_batch, step_rows and page_limit are of each schedule, and so is the memory for a step; request_limit is
// of all. cov_device_generator_get_state adds the schedules up, a page being of all stages. A step is one of every
// schedule; its events come in the order in which their requests were submitted, on the caller's thread. When a
// device fails, what was drawn on others is told before the error is returned.
cov_status cov_parallel_generator_create(cov_parallel_model* model, const cov_generator_options* options,
                                         cov_device_generator** generator);

// Forgets all requests and gives everything back. NULL does nothing.
void cov_device_generator_release(cov_device_generator* generator);

// Takes a new snapshot of the parameters. COV_FAILED_PRECONDITION unless idle. When it fails on several devices,
// requests are refused until it has succeeded.
cov_status cov_device_generator_refresh(cov_device_generator* generator);

// As cov_generator_submit, cov_generator_cancel and cov_generator_step.
cov_status cov_device_generator_submit(cov_device_generator* generator,
                                       const cov_generate_request* request,
                                       const cov_fingerprint_options* fingerprint, int32_t top_count,
                                       uint64_t* id);
cov_status cov_device_generator_cancel(cov_device_generator* generator, uint64_t id);
cov_status cov_device_generator_step(cov_device_generator* generator, cov_generator_callback callback,
                                     void* context, int32_t* active);

// All zeros for NULL.
cov_generator_state cov_device_generator_get_state(const cov_device_generator* generator);

#ifdef __cplusplus
}
#endif
#endif
