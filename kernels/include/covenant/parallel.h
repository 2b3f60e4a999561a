// One model trained by several CUDA devices of one machine: each batch spread over replicas, the layers of
// a replica spread over stages, or both.
//
// Determinism. Within one stage count and compute, equal inputs give equal bits on every run (tier B) with
// COV_COLLECTIVES_ORDERED; replicas always hold equal bits. One replica with COV_COMPUTE_F32 is tier A: losses,
// norms, gradients and parameters have the bits of cov_device_model and so of the CPU, whatever the number of
// stages. Several replicas add gradients in another order than one: equal to a tolerance (tier C).
// COV_COLLECTIVES_NCCL adds in an order of NCCL's choice (tier C).
//
// Errors: those of covenant/device_model.h. After one the parameters and moments are as before the call, unless a
// device failed while parameters were being written or cannot be brought back to rest: the model is closed then,
// every call but release says COV_FAILED_PRECONDITION and why.
//
// Threads: calls on one model must not overlap.
#ifndef COVENANT_PARALLEL_H
#define COVENANT_PARALLEL_H

#include <stdint.h>

#include "covenant/device_model.h"

#ifdef __cplusplus
extern "C" {
#endif

#define COV_PARALLEL_DEVICES_MAX 16

typedef struct cov_parallel_model cov_parallel_model;

typedef enum cov_collectives {
  // Copies between devices and sums in the order of the devices.
  COV_COLLECTIVES_ORDERED = 0,
  // libnccl.so.2 (or the file that COVENANT_NCCL_LIBRARY names), 2.10 or newer; where it is not, the ordered
  // ones, and cov_parallel_model_report says so.
  COV_COLLECTIVES_NCCL = 1
} cov_collectives;

typedef struct cov_parallel_options {
  int32_t stages;   // devices that share the layers of one replica: 1 (or 0) is data parallel, the number of
                    // devices is layer split; it divides that number and is at most the number of layers
  int32_t compute;  // a cov_compute
  int32_t collectives;          // a cov_collectives
  uint64_t memory_limit_bytes;  // of each device; 0: no limit but its own memory
} cov_parallel_options;

// devices: different indices of cov_device_info_at. Replica r is devices[r * stages] to
// devices[r * stages + stages - 1]. Parameters are zero. *model is NULL on error.
cov_status cov_parallel_model_create(const int32_t* devices, int32_t device_count,
                                     const cov_model_shape* shape,
                                     const cov_parallel_options* options,
                                     cov_parallel_model** model);
// NULL does nothing.
void cov_parallel_model_release(cov_parallel_model* model);

// One sentence: how the devices share the work and what carries it between them. Valid while the model is.
const char* cov_parallel_model_report(const cov_parallel_model* model);
// Layers [*first_layer, *first_layer + *layers) are on device `place` of the list given to create; what it has
// allocated, scratch included. Any result may be NULL.
cov_status cov_parallel_model_device(cov_parallel_model* model, int32_t place, int32_t* first_layer,
                                     int32_t* layers, uint64_t* bytes, uint64_t* peak_bytes);

// As cov_device_model_read and cov_device_model_write, in the order of the whole model. Gradients read are sums
// over the replicas. Writing reaches every replica.
cov_status cov_parallel_model_read(cov_parallel_model* model, int32_t which, uint64_t offset,
                                   uint64_t count, float* values);
cov_status cov_parallel_model_write(cov_parallel_model* model, int32_t which, uint64_t offset,
                                    uint64_t count, const float* values);
// Of one replica, for who wants to see that they are equal.
cov_status cov_parallel_model_read_replica(cov_parallel_model* model, int32_t replica, int32_t which,
                                           uint64_t offset, uint64_t count, float* values);

int64_t cov_parallel_model_step_count(const cov_parallel_model* model);
cov_status cov_parallel_model_set_step_count(cov_parallel_model* model, int64_t count);

// As the calls of cov_device_model. A batch is spread by whole sequences, in order; a replica may get none.
cov_status cov_parallel_model_forward(cov_parallel_model* model, const cov_batch* batch,
                                      const cov_forward_options* options,
                                      const cov_forward_output* output);
cov_status cov_parallel_model_backward(cov_parallel_model* model, const float* coefficients,
                                       uint64_t count);
cov_status cov_parallel_model_optimizer_step(cov_parallel_model* model,
                                             const cov_adamw_options* options, float* gradient_norm);
cov_status cov_parallel_model_train_step(cov_parallel_model* model, const cov_batch* batch,
                                         const cov_adamw_options* options, double* loss,
                                         float* gradient_norm);

// As cov_device_model_generate and cov_device_model_replay, with the bits of one device: requests are spread over
// the replicas, in order, and each replica works on its own at once. A token goes through the stages one after the
// other: splitting layers is for a model that no device holds. What keeps several stages busy are more requests for a
// replica than options->max_batch, which then decode in up to as many groups as there are stages, and long prompts and
// replay, which go through the stages in pieces of 256 rows. on_token is called from several threads, by one at a time.
// When a request fails the others end early.
cov_status cov_parallel_model_generate(cov_parallel_model* model, const cov_generate_request* requests,
                                       int32_t request_count, const cov_generate_options* options,
                                       cov_generate_output* outputs);
cov_status cov_parallel_model_replay(cov_parallel_model* model, const cov_replay_request* requests,
                                     int32_t request_count, const cov_replay_options* options,
                                     const cov_replay_output* outputs);

#ifdef __cplusplus
}
#endif
#endif
