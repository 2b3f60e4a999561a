// The inner kernels of generation, compiled once per instruction set and chosen with the engine's
// path (cov_set_cpu_path).
//
// Every entry gives the same bits in every implementation. fp32 and bf16 weights: one chain of
// fused multiply-adds per output in index order, bf16 widened exactly. int8: sums of integers, so
// no order shows, then two multiplications and an addition in fp32.
#pragma once

#include <stdint.h>

namespace covenant {

// Columns of one packed panel of weights, and positions of one page of keys and values.
constexpr int64_t kWeightPanel = 32;
constexpr int64_t kPagePositions = 16;

// Rows of activations as bytes: byte = q + 128, value = q * scale, q in [-127, 127].
struct Int8Rows {
  const uint8_t* bytes;  // row stride `stride`, zero-point bytes up to a multiple of 4
  const float* scales;   // one per row; NaN when the row was not finite
  int64_t stride;
};

// Panels of int8 weights: panel p at bytes + p * panel_bytes, [k / 4][32 columns][4].
struct Int8Panels {
  const int8_t* bytes;
  int64_t panel_bytes;
  const float* scales;     // one per column
  const int32_t* offsets;  // 128 * sum of the column's weights
};

// One head's share of a row of attention.
struct AttentionLane {
  const float* scores;  // probabilities by position
  int64_t offset;       // of the head's values inside a page
  float* out;           // dim floats
};

struct GenerationKernels {
  const char* name;

  // out (m, columns) = residual + x (m, k) W^T. Panel p of the weights at w + p * k * 32, rows
  // [k][32] padded with zeros; in bf16 a row holds columns c and 16 + c next to each other.
  // residual may be null or alias out; both have row stride out_row.
  void (*linear_f32)(int64_t m, int64_t columns, int64_t k, const float* x, int64_t x_row,
                     const float* w, const float* residual, float* out, int64_t out_row);
  void (*linear_bf16)(int64_t m, int64_t columns, int64_t k, const float* x, int64_t x_row,
                      const uint16_t* w, const float* residual, float* out, int64_t out_row);
  void (*linear_int8)(int64_t m, int64_t columns, int64_t k, const Int8Rows& x,
                      const Int8Panels& w, const float* residual, float* out, int64_t out_row);

  // bytes[0, n) of one row and the zero point up to the next multiple of 4; returns its scale.
  float (*quantise)(const float* x, int64_t n, uint8_t* bytes);

  // Attention over pages, by the type of their elements: [0] fp32, [1] bf16, widened exactly.
  // scores (rows, score_row)[r][16 p + i] = q[r] . key i of page p; keys of a page are [dim][16].
  void (*scores[2])(int64_t rows, int64_t dim, const float* q, int64_t q_row,
                    const void* const* pages, int64_t offset, int64_t page_count, float* scores,
                    int64_t score_row);
  // In place softmax of s[0, n) * scale, zeros in [n, padded).
  void (*softmax)(float* s, float scale, int64_t n, int64_t padded);
  // lane.out = sum over positions [0, n) of scores * values; values of a page are [16][padded_dim].
  void (*weighted[2])(const AttentionLane* lanes, int64_t lane_count, const void* const* pages,
                      int64_t n, int64_t dim, int64_t padded_dim);
  // Largest of x[0, n).
  float (*largest)(const float* x, int64_t n);
};

// nullptr where the compiler or the target has no such instruction set.
const GenerationKernels* generation_kernels_portable();
const GenerationKernels* generation_kernels_avx2();
const GenerationKernels* generation_kernels_avx512();
const GenerationKernels* generation_kernels_avx512vnni();

// The table that belongs to the engine's path. "avx512" means with VNNI where the machine has it.
const GenerationKernels& generation_kernels();
// By name ("avx512vnni", "avx512", "avx2", "portable"); nullptr when this machine has it not.
const GenerationKernels* generation_kernels_named(const char* name);

}  // namespace covenant
