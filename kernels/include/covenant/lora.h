// Low-rank adapters: W' = W + (alpha / rank) B A on chosen matrices of every layer, B (outputs,
// rank), A (rank, inputs). The base stays frozen; A and B have gradients and AdamW state of their
// own, in flat buffers that can be saved and restored. A model may have any number of adapters, of
// which one is in use.
//
// While adapters are in use, every call of the model (forward, backward, generate, a new snapshot of
// a generator, replay) works with W'. Adapters are added when the weights are packed, so a forward
// pass costs nothing; generation and replay agree bit for bit as they do without.
//
// Backward computes no gradient of the base: with y = x W'^T and s = alpha / rank,
//   dB = dy^T (x (s A)^T)    dA = (dy (s B))^T x
// each a product of the model's own format (cov_compute), so for small ranks a step costs about three
// quarters of one of the whole model, and the base needs neither gradients nor moments.
//
// Threads and errors: as in covenant/model.h. Memory: counts towards the model's limit. Tier: that of
// the model's calls.
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

// Retains the model. Not in use yet.
cov_status cov_lora_create(cov_model* model, const cov_lora_options* options, cov_lora** lora);

// Stops their use; what was merged stays so. NULL does nothing.
void cov_lora_release(cov_lora* lora);

// From the next call on the model works with these adapters, or with none when NULL. A change drops
// kept activations. While adapters are in use the base is frozen: cov_model_backward adds to
// their COV_GRADIENTS, cov_model_train_step trains them, and cov_model_optimizer_step is
// COV_FAILED_PRECONDITION.
cov_status cov_model_use_lora(cov_model* model, cov_lora* lora);

// Live flat buffer `which` (a cov_buffer): per layer, per target in the order of the bits, A then B.
// All but the parameters are zeroed on first use.
cov_status cov_lora_buffer(cov_lora* lora, int32_t which, float** data, uint64_t* length);

// AdamW steps done; set when restoring.
int64_t cov_lora_step_count(const cov_lora* lora);
cov_status cov_lora_set_step_count(cov_lora* lora, int64_t count);

// Bytes these adapters hold, working memory included.
uint64_t cov_lora_memory_bytes(const cov_lora* lora);

// One AdamW step of A and B (decay applies to both), then clears their gradients. As
// cov_model_optimizer_step.
cov_status cov_lora_optimizer_step(cov_lora* lora, const cov_adamw_options* options,
                                   float* gradient_norm);

// Adds (alpha / rank) B A to the model's parameters: W' stays what it is, with and without the
// adapters. For good (reversible 0), B becomes zero and can be trained on. Reversibly, the adapters
// keep their values and the base's adapted matrices, and cannot be trained meanwhile.
cov_status cov_lora_merge(cov_lora* lora, int32_t reversible);

// Undoes a reversible merge: the adapted matrices of the base have their bits of before. What was
// merged last comes first (COV_FAILED_PRECONDITION otherwise).
cov_status cov_lora_unmerge(cov_lora* lora);

#ifdef __cplusplus
}
#endif
#endif
