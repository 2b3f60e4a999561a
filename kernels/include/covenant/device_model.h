// The engine on a CUDA device: forward, backward, AdamW and generation of a LLaMA decoder, as
// covenant/model.h has them on the CPU.
//
// Threads: as cov_device, of which a model is a part; close the device after its last model.
//
// Determinism. COV_COMPUTE_F32 is tier A: every result has the bits of the CPU engine, log-probs,
// entropy, gradients, steps and losses alike, given the same rotary table (the C library's sin and cos).
// COV_COMPUTE_BF16 is tier B: the same bits on one type of device, and log-probs and tokens whatever the
// batch; the tensor cores add up products in an order of their own. In forward and backward everything
// between products but the residual stream and its gradient is bf16, attention included; in generation
// attention and what is between products are fp32. Generation and replay with COV_WEIGHTS_BF16 and COV_WEIGHTS_INT8
// are tier A in models of either compute: they are made of the fp32 parameters as on the CPU.
//
// Errors: those of covenant/model.h, and COV_UNSUPPORTED where CUDA is not available. After an error the
// parameters and moments are as before the call.
#ifndef COVENANT_DEVICE_MODEL_H
#define COVENANT_DEVICE_MODEL_H

#include <stdint.h>

#include "covenant/device.h"
#include "covenant/model.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct cov_device_model cov_device_model;

// May be added to COV_COMPUTE_BF16: products of forward, backward and steps come from cuBLASLt, which is
// looked for when the model is created (the file in COVENANT_CUBLASLT_LIBRARY, else libcublasLt.so.13 or .12;
// COV_UNSUPPORTED with the reason when there is none of 12.0 or newer). Tier C: it chooses an algorithm by
// the shape, so log-probs depend on the batch. Generation keeps the own products.
#define COV_PRODUCTS_VENDOR 0x100

// Parameters are zero. compute is a cov_compute. *model is NULL on error.
cov_status cov_device_model_create(cov_device* device, const cov_model_shape* shape, int32_t compute,
                                   cov_device_model** model);
// NULL does nothing.
void cov_device_model_release(cov_device_model* model);

// Copies `count` floats from index `offset` of buffer `which` (a cov_buffer) to or from the host.
cov_status cov_device_model_read(cov_device_model* model, int32_t which, uint64_t offset,
                                 uint64_t count, float* values);
cov_status cov_device_model_write(cov_device_model* model, int32_t which, uint64_t offset,
                                  uint64_t count, const float* values);

int64_t cov_device_model_step_count(const cov_device_model* model);
cov_status cov_device_model_set_step_count(cov_device_model* model, int64_t count);

// As cov_model_forward.
cov_status cov_device_model_forward(cov_device_model* model, const cov_batch* batch,
                                    const cov_forward_options* options,
                                    const cov_forward_output* output);

// As cov_model_backward, cov_model_optimizer_step and cov_model_train_step.
cov_status cov_device_model_backward(cov_device_model* model, const float* coefficients,
                                     uint64_t count);
cov_status cov_device_model_optimizer_step(cov_device_model* model, const cov_adamw_options* options,
                                           float* gradient_norm);
cov_status cov_device_model_train_step(cov_device_model* model, const cov_batch* batch,
                                       const cov_adamw_options* options, double* loss,
                                       float* gradient_norm);

// As cov_model_generate, with pages of keys and values on the device and the draws on the host. Requests of
// up to 24000 positions, else COV_UNSUPPORTED. COV_WEIGHTS_F32 are the weights of the model's compute, which are not
// copied; those of other types are made anew for each call, adapters in use included, and count as memory of the
// device while it lasts. Tokens, log-probs and fingerprints have the CPU's bits, but for COV_WEIGHTS_F32 of a model
// in bf16.
cov_status cov_device_model_generate(cov_device_model* model, const cov_generate_request* requests,
                                     int32_t request_count, const cov_generate_options* options,
                                     cov_generate_output* outputs);

// CUDA graphs of generation. A step that adds one token to each sequence is the same launches every time, with
// tokens, positions and places read from memory. When such a step comes again it is captured, and launched as a
// whole from then on; a call to generate, and a generator (covenant/device_generator.h), keeps at most 16 graphs, and
// none longer than itself. Bits are the same with and without. Graphs are on unless COVENANT_CUDA_GRAPHS is 0 when the model is created.
typedef struct cov_device_graphs {
  int32_t enabled;
  uint64_t captured;   // graphs, since the model was created, as all counts
  uint64_t launched;   // steps that ran as a graph
  uint64_t plain;      // steps that ran launch by launch: prompts, and each step when it comes for the first time
  uint64_t nodes_max;  // launches and copies of the largest graph
  cov_status refusal;  // why CUDA refused the last capture it refused; steps of that call ran launch by launch
} cov_device_graphs;

cov_status cov_device_model_graphs(const cov_device_model* model, cov_device_graphs* graphs);
// enabled: 0 or 1.
cov_status cov_device_model_set_graphs(cov_device_model* model, int32_t enabled);

// As cov_model_replay, under the same bounds. Every output has the CPU's bits; with COV_WEIGHTS_F32 of a model in
// bf16 it equals what cov_device_model_generate reported on this type of device.
cov_status cov_device_model_replay(cov_device_model* model, const cov_replay_request* requests,
                                   int32_t request_count, const cov_replay_options* options,
                                   const cov_replay_output* outputs);

#ifdef __cplusplus
}
#endif
#endif
