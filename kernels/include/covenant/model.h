// The CPU engine: a LLaMA decoder with forward, backward, AdamW, generation and replay.
//
// Threads: a model is not thread safe; call it from one thread at a time (its engine thread). A
// model with one thread runs entirely on the caller. Buffers handed in are read or written only
// during the call.
//
// Determinism: every result has the same bits on rerun and for every thread count: sums run in one
// fixed order made of IEEE fp32 operations and fused multiply-adds. A row's hidden state does not
// depend on the other rows of its batch, so decode and prefill agree bit for bit. With
// COV_COMPUTE_F32 the bits are the same on every CPU path as well. With COV_COMPUTE_BF16 (tier B)
// they are the same on one path; between AMX and the others they differ by the order of additions
// within 32 products, between AVX-512-BF16 and the wider paths only where a sum is subnormal.
// Between machines the rotary table comes from the C library's sin and cos in double precision,
// rounded to fp32.
//
// Errors: COV_INVALID_ARGUMENT, COV_OUT_OF_RANGE (tokens, lengths), COV_NON_FINITE,
// COV_OUT_OF_MEMORY, COV_MEMORY_LIMIT; no call crashes on bad input. After an error the parameters
// and moments are as before the call unless the call says otherwise.
#ifndef COVENANT_MODEL_H
#define COVENANT_MODEL_H

#include <stdint.h>

#include "covenant/status.h"
#include "covenant/tensors.h"

#ifdef __cplusplus
extern "C" {
#endif

// ---- CPU path ------------------------------------------------------------------------------

// Names: "amx", "avx512bf16", "avx512", "avx2", "portable". The fastest supported path is chosen on
// first use; the environment variable COVENANT_CPU_PATH forces one. An unsupported or unknown name in
// the environment is ignored in favour of the best path; in this call it is COV_UNSUPPORTED.
// Process-wide; must not run at the same time as a model call. NULL or "" goes back to the best.
cov_status cov_set_cpu_path(const char* name);
const char* cov_cpu_path(void);

// Threads a model gets for `threads` = 0: the smaller of CPU affinity and cgroup quota, at least 1.
int32_t cov_default_threads(void);

// ---- life cycle ----------------------------------------------------------------------------

typedef struct cov_model cov_model;

// How matrix products are computed. Parameters, gradients, moments, sums, softmax, norms and
// activations between products are fp32 in both.
typedef enum cov_compute {
  COV_COMPUTE_F32 = 0,
  // The operands of each product with a weight matrix and of those of attention, forward and
  // backward, are rounded to bf16 (nearest even; subnormal numbers to zero); products are summed in
  // fp32. Generation has formats of its own (cov_weights).
  COV_COMPUTE_BF16 = 1
} cov_compute;

typedef struct cov_model_options {
  const float* parameters;      // initial values, copied; NULL: zeros
  uint64_t parameter_count;     // floats in `parameters`; must be exact when parameters is given
  int32_t threads;              // 0: cov_default_threads(); at most 256
  uint64_t memory_limit_bytes;  // cap of everything this model allocates; 0: no cap
  int32_t compute;              // a cov_compute
} cov_model_options;

// Creates a model with reference count 1. *model is NULL on error.
cov_status cov_model_create(const cov_model_shape* shape, const cov_model_options* options,
                            cov_model** model);

// Reference counting (atomic), so that views of the buffers may outlive the owner's handle.
// release(NULL) does nothing; the last release frees everything.
void cov_model_retain(cov_model* model);
void cov_model_release(cov_model* model);

const cov_model_shape* cov_model_get_shape(const cov_model* model);
int32_t cov_model_threads(const cov_model* model);

// Bytes allocated now and the highest since creation.
uint64_t cov_model_memory_bytes(const cov_model* model);
uint64_t cov_model_memory_peak_bytes(const cov_model* model);

// Frees scratch, packed weights and kept activations (they come back on demand).
void cov_model_trim(cov_model* model);

typedef enum cov_buffer {
  COV_PARAMETERS = 0,
  COV_GRADIENTS = 1,
  COV_FIRST_MOMENT = 2,
  COV_SECOND_MOMENT = 3
} cov_buffer;

// Live flat buffer `which` (a cov_buffer; cov_parameter_count floats, 64-byte aligned), stable
// until the last release. All but the parameters are allocated, zeroed, on first use. The caller
// may write between calls.
cov_status cov_model_buffer(cov_model* model, int32_t which, float** data, uint64_t* length);

// Number of AdamW steps done, used by the bias correction; set when restoring a state.
int64_t cov_model_step_count(const cov_model* model);
cov_status cov_model_set_step_count(cov_model* model, int64_t count);

// ---- training ------------------------------------------------------------------------------

// Row-major (sequences, sequence_length). Position t predicts targets[t] from tokens[0..t];
// target -1 means not scored. Sequences are independent; sequence_length <= max_positions.
typedef struct cov_batch {
  const int32_t* tokens;
  const int32_t* targets;
  int32_t sequences;
  int32_t sequence_length;
} cov_batch;

typedef struct cov_forward_options {
  int32_t keep_activations;  // 1: cov_model_backward may follow
  int32_t top_count;         // 0..256 (and <= vocab_size): most probable tokens per position
  float temperature;         // log-probs are of softmax(z / temperature); 0 means 1
} cov_forward_options;

// Any pointer may be NULL. Sizes: log_probs (natural logarithms), entropy: positions; top_*:
// positions * top_count, descending, equal log-probs by ascending id. Positions not scored get 0, 0,
// -1 and 0.
typedef struct cov_forward_output {
  float* log_probs;
  float* entropy;  // nats, of the distribution at `temperature`
  int32_t* top_tokens;
  float* top_log_probs;
} cov_forward_output;

cov_status cov_model_forward(cov_model* model, const cov_batch* batch,
                             const cov_forward_options* options, const cov_forward_output* output);

// coefficients[position] = dL/dlogProb for the last forward with keep_activations (its batch is
// copied); gradients of L accumulate in COV_GRADIENTS. Parameters must not have changed between.
// Consumes the kept activations. After an error the gradients may hold part of the sums.
cov_status cov_model_backward(cov_model* model, const float* coefficients, uint64_t count);

// AdamW with decoupled decay (none on rank-1 tensors) and bias correction, as torch.optim.AdamW;
// gradient_clip > 0 scales gradients by min(1, clip / (norm + 1e-6)) first.
typedef struct cov_adamw_options {
  float learning_rate;
  float beta1;
  float beta2;
  float epsilon;
  float weight_decay;
  float gradient_clip;  // 0: off
} cov_adamw_options;

// One step from COV_GRADIENTS, then clears them. A non-finite norm is COV_NON_FINITE: parameters,
// moments and count stay, gradients are cleared. gradient_norm (may be NULL) is before clipping.
cov_status cov_model_optimizer_step(cov_model* model, const cov_adamw_options* options,
                                    float* gradient_norm);

// Forward, mean negative log-likelihood over scored positions (*loss, in nats), backward, step.
// Gradients already accumulated take part; an error on the way clears them. No scored position is
// COV_INVALID_ARGUMENT. Needs memory for a few sequences only. loss and gradient_norm may be NULL.
cov_status cov_model_train_step(cov_model* model, const cov_batch* batch,
                                const cov_adamw_options* options, double* loss,
                                float* gradient_norm);

// ---- generation ----------------------------------------------------------------------------
//
// Sampler: z = logits; w_j = exp((z_j - max z) / temperature) in fp32 by the engine's own exp;
// keep the top_k largest (ties by lowest id; 0: all), then the shortest prefix of the descending
// order whose share of the kept weight reaches top_p (1: all); u = cov_uniform_at(sampling_seed,
// completion index); the token is the first kept id, ascending, whose running double sum of w
// exceeds u * total. Temperature 0: the largest logit, lowest id.
//
// Fingerprint of a completion token: h = final hidden state that produced it, before the final
// norm's gain; y = h / rms(h) (with rms_norm_eps); p_m = sum_i sign(m, i) * y_i / sqrt(hidden);
// value = clamp(round_half_even(16 * p_m), -128, 127), with cov_fingerprint_sign (rng.h).

typedef struct cov_fingerprint_options {
  uint8_t seed[32];
  int32_t dims;  // 1..64
} cov_fingerprint_options;

typedef struct cov_generate_request {
  const int32_t* prompt;
  int32_t prompt_length;   // >= 1
  int32_t max_new_tokens;  // >= 1; prompt_length + max_new_tokens <= max_positions
  float temperature;       // >= 0
  int32_t top_k;           // 0: off
  float top_p;             // in (0, 1]; 0 means 1
  const int32_t* stop_tokens;
  int32_t stop_token_count;  // 0..64
  uint8_t sampling_seed[32];
} cov_generate_request;

typedef enum cov_finish_reason {
  COV_FINISH_NOT_YET = -1,
  COV_FINISH_LENGTH = 0,
  COV_FINISH_STOP = 1,
  COV_FINISH_FAILED = 2
} cov_finish_reason;

// How generation and replay keep the weights. Whatever the type, results have the same bits on every
// CPU path, thread count and batch, and replay under a type equals generation under it.
typedef enum cov_weight_type {
  COV_WEIGHTS_F32 = 0,
  // Every parameter, key and value rounded to bf16 (nearest, ties to even), arithmetic in fp32.
  COV_WEIGHTS_BF16 = 1,
  // Matrices as bytes with one scale per output, their inputs as bytes with one scale per row, exact
  // sums; keys and values bf16; embedding and norms fp32.
  COV_WEIGHTS_INT8 = 2
} cov_weight_type;

// Buffers of the caller, any but `tokens` may be NULL. Sizes: tokens, log_probs: max_new_tokens;
// fingerprints: max_new_tokens * dims; top_*: max_new_tokens * top_count.
typedef struct cov_generate_output {
  int32_t* tokens;   // includes the stop token
  float* log_probs;  // before temperature, top-k and top-p
  int8_t* fingerprints;
  int32_t* top_tokens;
  float* top_log_probs;
  int32_t token_count;    // set by the call
  int32_t finish_reason;  // set by the call: cov_finish_reason
} cov_generate_output;

// Called on the engine thread for each token, in order within a request.
typedef void (*cov_token_callback)(void* context, int32_t request, int32_t index, int32_t token,
                                   float log_prob);

typedef struct cov_generate_options {
  const cov_fingerprint_options* fingerprint;  // NULL: none
  int32_t top_count;                           // 0..256
  int32_t max_batch;                           // sequences decoded at once; 0: 32
  cov_token_callback on_token;                 // may be NULL
  void* context;
  const int32_t* cancel;  // may be NULL; set non-zero (atomically) to stop: COV_CANCELLED
  int32_t weights;        // a cov_weight_type
} cov_generate_options;

// All requests to their end, over a generator (covenant/generator.h) that lives for the call. What a
// request yields does not depend on the others; a prompt several have in common is computed once.
// On COV_CANCELLED outputs hold the tokens so far.
cov_status cov_model_generate(cov_model* model, const cov_generate_request* requests,
                              int32_t request_count, const cov_generate_options* options,
                              cov_generate_output* outputs);

// ---- replay --------------------------------------------------------------------------------

typedef struct cov_replay_request {
  const int32_t* prompt;
  int32_t prompt_length;
  const int32_t* completion;
  int32_t completion_length;  // >= 1
  float temperature;
  int32_t top_k;
  float top_p;
  uint8_t sampling_seed[32];
} cov_replay_request;

// Sizes: completion_length each, fingerprints * dims; any pointer may be NULL.
typedef struct cov_replay_output {
  int32_t* drawn;  // the token the bound sampler draws at this position
  float* margin;   // |u - nearest edge| of the claimed token's CDF interval when u lies inside it,
                   // else 0; at temperature 0: the lead of the claimed token's logit, else 0
  float* log_probs;  // of the claimed token, before temperature
  int8_t* fingerprints;
} cov_replay_output;

typedef struct cov_replay_options {
  const cov_fingerprint_options* fingerprint;  // NULL: none
  const int32_t* cancel;                       // may be NULL; as for cov_model_generate
  int32_t weights;                             // a cov_weight_type
} cov_replay_options;

// One prefill over prompt + completion. Bit-equal to what cov_model_generate reported under the same
// weight type.
cov_status cov_model_replay(cov_model* model, const cov_replay_request* requests,
                            int32_t request_count, const cov_replay_options* options,
                            const cov_replay_output* outputs);

#ifdef __cplusplus
}
#endif
#endif
