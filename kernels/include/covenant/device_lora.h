// Low-rank adapters of a model on CUDA devices, as covenant/lora.h has them on the CPU: the base stays frozen
// while adapters are in use, and every call of the model works with W' = W + (alpha / rank) B A.
//
// Determinism. With COV_COMPUTE_F32 tier A: initial values, gradients, steps, losses and merged parameters have
// the CPU's bits (on several devices as covenant/parallel.h says of the whole model). With COV_COMPUTE_BF16
// tier B: W' is rounded once, when parameters have changed, and the products of the gradients are the model's
// (tier C with COV_PRODUCTS_VENDOR). Generation and replay work with W' as well; merging changes no bit of them.
//
// Memory is the device's: buffers of the adapters, and W' of the adapted matrices in an fp32 model (q, k and v
// count as one matrix, and so do gate and up); a bf16 model has W' in place of its rounded parameters.
//
// Errors: those of covenant/lora.h and covenant/device_model.h. After an error the adapters, parameters and
// moments are as before the call. Threads: an adapter is a part of its model.
#ifndef COVENANT_DEVICE_LORA_H
#define COVENANT_DEVICE_LORA_H

#include <stdint.h>

#include "covenant/device_model.h"
#include "covenant/lora.h"
#include "covenant/parallel.h"

#ifdef __cplusplus
extern "C" {
#endif

// A model may have any number of them, of which one is in use. They retain the model: releasing it first is
// fine, closing its device before they are released is not.
typedef struct cov_device_lora cov_device_lora;

// Not in use yet. *lora is NULL on error.
cov_status cov_device_model_create_lora(cov_device_model* model, const cov_lora_options* options,
                                        cov_device_lora** lora);
// The same adapters on every replica; gradients are summed over the replicas. Each stage has the adapters of its
// layers; the buffers below are those of the whole model, and so are the norm and the initial values.
cov_status cov_parallel_model_create_lora(cov_parallel_model* model, const cov_lora_options* options,
                                          cov_device_lora** lora);
// Stops their use; what was merged stays so. NULL does nothing.
void cov_device_lora_release(cov_device_lora* lora);

// As cov_model_use_lora: adapters of this model, or NULL.
cov_status cov_device_model_use_lora(cov_device_model* model, cov_device_lora* lora);
cov_status cov_parallel_model_use_lora(cov_parallel_model* model, cov_device_lora* lora);

// Floats of each buffer, which lie as on the CPU.
uint64_t cov_device_lora_length(const cov_device_lora* lora);
// As cov_device_model_read and cov_device_model_write.
cov_status cov_device_lora_read(cov_device_lora* lora, int32_t which, uint64_t offset,
                                uint64_t count, float* values);
cov_status cov_device_lora_write(cov_device_lora* lora, int32_t which, uint64_t offset,
                                 uint64_t count, const float* values);

int64_t cov_device_lora_step_count(const cov_device_lora* lora);
cov_status cov_device_lora_set_step_count(cov_device_lora* lora, int64_t count);

// Bytes that these adapters hold on all devices.
uint64_t cov_device_lora_memory_bytes(const cov_device_lora* lora);

// As cov_lora_optimizer_step, cov_lora_merge and cov_lora_unmerge.
cov_status cov_device_lora_optimizer_step(cov_device_lora* lora, const cov_adamw_options* options,
                                          float* gradient_norm);
cov_status cov_device_lora_merge(cov_device_lora* lora, int32_t reversible);
cov_status cov_device_lora_unmerge(cov_device_lora* lora);

#ifdef __cplusplus
}
#endif
#endif
