// Low-rank adapters: W' = W + (alpha / rank) B A on chosen matrices of every layer, B (outputs,
// rank), A (rank, inputs). The base stays frozen; A and B have gradients and AdamW state of their
// own, in flat buffers that can be saved and restored.
//
// While adapters are in use, every call of the model (forward, backward, generate, a new snapshot of
// a generator, replay) works with W'. Adapters are added when the weights are packed, so a pass over
// them costs nothing; generation and replay agree bit for bit as they do without.
//
// Threads and errors: as in covenant/model.h. Tier: that of the model's calls.
#ifndef COVENANT_LORA_H
#define COVENANT_LORA_H

#include <stdint.h>

#include "covenant/model.h"
#include "covenant/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct cov_lora cov_lora;

// Matrices, to be combined.
typedef enum cov_lora_target {
  COV_LORA_Q = 1,
  COV_LORA_K = 2,
  COV_LORA_V = 4,
  COV_LORA_O = 8,
  COV_LORA_GATE = 16,
  COV_LORA_UP = 32,
  COV_LORA_DOWN = 64
} cov_lora_target;

typedef struct cov_lora_options {
  int32_t rank;  // 1..1024
  float alpha;   // finite, not 0
  int32_t targets;
  uint64_t seed;  // of A, uniform in +-1 / sqrt(inputs); B begins as zeros, so W' = W
} cov_lora_options;

// Retains the model. Its memory counts towards the model's limit. Not in use yet.
cov_status cov_lora_create(cov_model* model, const cov_lora_options* options, cov_lora** lora);

// Stops their use. NULL does nothing.
void cov_lora_release(cov_lora* lora);

// From the next call on the model works with these adapters, or with none when NULL. Kept
// activations are dropped.
cov_status cov_model_use_lora(cov_model* model, cov_lora* lora);

// Live flat buffer `which` (a cov_buffer): per layer, per target in the order of the bits, A then B.
// All but the parameters are zeroed on first use.
cov_status cov_lora_buffer(cov_lora* lora, int32_t which, float** data, uint64_t* length);

// AdamW steps done; set when restoring.
int64_t cov_lora_step_count(const cov_lora* lora);
cov_status cov_lora_set_step_count(cov_lora* lora, int64_t count);

// After cov_model_backward with these adapters in use: adds the gradients of A and B to this
// COV_GRADIENTS and clears the model's.
cov_status cov_lora_collect(cov_lora* lora);

// One AdamW step of A and B (decay applies to both), then clears their gradients. As
// cov_model_optimizer_step.
cov_status cov_lora_optimizer_step(cov_lora* lora, const cov_adamw_options* options,
                                   float* gradient_norm);

// Adds (alpha / rank) B A to the model's parameters and sets B to zero: W' stays what it is.
cov_status cov_lora_merge(cov_lora* lora);

#ifdef __cplusplus
}
#endif
#endif
