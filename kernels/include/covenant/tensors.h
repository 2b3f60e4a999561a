// Shape of a LLaMA-style decoder and the layout of its parameters in one flat fp32 buffer. Tier A:
// the same bits on every machine.
//
// Errors: COV_INVALID_ARGUMENT, for a shape that cannot be and for a buffer of another size.
#ifndef COVENANT_TENSORS_H
#define COVENANT_TENSORS_H

#include <stdint.h>

#include "covenant/status.h"

#ifdef __cplusplus
extern "C" {
#endif

// head size = hidden_size / head_count (must be even); query heads are grouped over kv heads.
typedef struct cov_model_shape {
  int32_t vocab_size;
  int32_t hidden_size;
  int32_t intermediate_size;
  int32_t layer_count;
  int32_t head_count;
  int32_t kv_head_count;
  int32_t max_positions;
  int32_t tie_word_embeddings;  // 1: the head uses the embedding matrix, no lm_head.weight
  double rope_theta;
  double rms_norm_eps;
} cov_model_shape;

#define COV_TENSOR_NAME_BYTES 80

// One tensor of the flat buffer. Matrices are row-major (output, input) as in Hugging Face.
typedef struct cov_tensor_info {
  char name[COV_TENSOR_NAME_BYTES];
  int32_t rank;     // 1 or 2
  int64_t dims[2];  // dims[1] is 1 for rank 1
  uint64_t offset;  // in floats
  uint64_t length;  // in floats
} cov_tensor_info;

// Checks a shape against the limits of the engine; the message names the offending field.
cov_status cov_shape_check(const cov_model_shape* shape);

// Number of tensors (2 + 9 per layer, +1 untied) and of floats of a checked shape.
int32_t cov_tensor_count(const cov_model_shape* shape);
uint64_t cov_parameter_count(const cov_model_shape* shape);

// Fills `tensors` (capacity >= cov_tensor_count) in Hugging Face LLaMA order:
//   model.embed_tokens.weight; per layer self_attn.{q,k,v,o}_proj, mlp.{gate,up,down}_proj,
//   input_layernorm, post_attention_layernorm; model.norm.weight; lm_head.weight when untied.
cov_status cov_tensor_table(const cov_model_shape* shape, cov_tensor_info* tensors,
                            int32_t capacity);

// Initial parameters, tier A (integer sums, one double product, one rounding to fp32):
//   element i of tensor t: x = Philox(key = (seed lo, seed hi), counter = (i lo, i hi, t,
//   0x494e4954)); s = sum of the eight 16-bit halves of x; value = fp32((s - 262140) * scale),
//   scale = std / sqrt(8 * (2^32 - 1) / 12); std = 0.02, and 0.02 / sqrt(2 * layer_count) for
//   self_attn.o_proj and mlp.down_proj. Norm gains are 1.
cov_status cov_initial_parameters(const cov_model_shape* shape, uint64_t seed, float* parameters,
                                  uint64_t length);

#ifdef __cplusplus
}
#endif
#endif
