// The inner kernels of the engine, compiled once per instruction set and chosen at run time.
//
// Every entry but gemm_bf16 gives the same bits in every implementation: elementwise work is plain
// IEEE fp32, sums over a row use 16 running sums (lane = index mod 16) folded by halves (8, 4, 2,
// 1), products feed one fused multiply-add per step in index order.
#pragma once

#include <stdint.h>

namespace covenant {

// Columns of one packed panel of a right-hand matrix.
constexpr int64_t kPanel = 32;

// A number in bfloat16: the upper half of an fp32 one.
typedef uint16_t Bf16;

// Inner dimension of bf16 operands in memory: filled up with zeros to what every path can step by.
constexpr int64_t bf16_padded(int64_t k) { return (k + 31) / 32 * 32; }

// What one pass over a row of logits yields (z scaled by the inverse temperature).
struct RowStats {
  float max;  // largest scaled logit
  float sum;  // sum of exp(z - max)
  float dot;  // sum of exp(z - max) * (z - max)
};

struct AdamwScalars {
  float decay;  // 1 - learning_rate * weight_decay, or 1
  float beta1, one_minus_beta1;
  float beta2, one_minus_beta2;
  float step_size;  // learning_rate / (1 - beta1^t)
  float inv_bias2;  // 1 / sqrt(1 - beta2^t)
  float epsilon;
  float grad_scale;  // clip factor
};

struct KernelTable {
  const char* name;

  // C[m, n] = init + A[m, k] B[k, n]; A(i, k) = a[i * a_row + k * a_k] with one stride equal to 1;
  // B in panels of 32 columns, panel p at b + p * b_panel, row-major [k][32], zero padded.
  // init (may be null: zeros) and c have their own row strides and may be the same buffer. The sum
  // of one element is one chain of fused multiply-adds in k order: no blocking shows in the bits.
  void (*gemm)(int64_t m, int64_t n, int64_t k, const float* a, int64_t a_row, int64_t a_k,
               const float* b, int64_t b_panel, const float* init, int64_t init_row, float* c,
               int64_t c_row);

  // Panels of the transpose: out panel p, row j, column c = w[(32 p + c) * ld + j], c < n - 32 p.
  void (*pack_transposed)(const float* w, int64_t n, int64_t k, int64_t ld, float* out);
  // One panel of at most 32 columns: out[j * 32 + c] = w[j * ld + c].
  void (*pack_panel)(const float* w, int64_t columns, int64_t k, int64_t ld, float* out);

  // ---- bf16 operands (see isa/bf16.h); `padded` inner dimensions are bf16_padded(), zero filled.

  // y[0, n) = x to nearest even, zeros in [n, padded). Subnormal numbers become zeros.
  void (*round_bf16)(const float* x, int64_t n, int64_t padded, Bf16* y);
  // As gemm with A row-major and both operands bf16; k, a_row and b_panel are multiples of 32. B in
  // panels [k / 2][32][2]. One fixed order of additions per element whatever m, n and the position,
  // but not the same one on every path: AMX adds 32 products at a time.
  void (*gemm_bf16)(int64_t m, int64_t n, int64_t k, const Bf16* a, int64_t a_row, const Bf16* b,
                    int64_t b_panel, const float* init, int64_t init_row, float* c, int64_t c_row);
  // gemm_bf16 with A^T in place of A: A (k, m) with row stride a_row, k >= 1 of any size; B as
  // above, with bf16_padded(k) of inner dimension.
  void (*gemm_bf16_transposed)(int64_t m, int64_t n, int64_t k, const Bf16* a, int64_t a_row,
                               const Bf16* b, int64_t b_panel, const float* init, int64_t init_row,
                               float* c, int64_t c_row);
  // pack_transposed and pack_panel, rounding to bf16.
  void (*pack_transposed_bf16)(const float* w, int64_t n, int64_t k, int64_t ld, Bf16* out);
  void (*pack_panel_bf16)(const float* w, int64_t columns, int64_t k, int64_t ld, Bf16* out);
  // pack_panel of rows that are bf16 already.
  void (*zip_panel_bf16)(const Bf16* w, int64_t columns, int64_t k, int64_t ld, Bf16* out);
  // The entries below of these names with results rounded to bf16.
  float (*rmsnorm_bf16)(const float* x, const float* gain, float eps, int64_t n, Bf16* y);
  void (*swiglu_bf16)(const float* gate, const float* up, int64_t n, Bf16* h);
  void (*swiglu_backward_bf16)(const float* gate, const float* up, const float* dh, int64_t n,
                               Bf16* h, Bf16* dgate, Bf16* dup);
  void (*logit_gradient_bf16)(const float* z, float inverse_temperature, float lse,
                              float coefficient, int64_t target, int64_t n, Bf16* dz);
  float (*softmax_bf16)(float* s, float scale, int64_t n, int64_t padded, Bf16* p);
  void (*softmax_backward_bf16)(const float* s, const float* dp, float scale, float lse,
                                float delta, int64_t n, int64_t padded, Bf16* p, Bf16* ds);

  // ---- rows of fp32

  // y = x * r * gain, r = 1 / sqrt(mean(x^2) + eps); returns r.
  float (*rmsnorm)(const float* x, const float* gain, float eps, int64_t n, float* y);
  // dx = dres + r * u - x * (r^3 * (u . x) / n), u = gain * dy; dgain += dy * (x * r).
  void (*rmsnorm_backward)(const float* x, const float* gain, const float* dy, const float* dres,
                           float r, int64_t n, float* dx, float* dgain);

  // In place on `heads` heads of `dim` floats: (a, b) -> (a c - b s, b c + a s), halves rotated.
  void (*rope)(float* x, const float* cosine, const float* sine, int64_t heads, int64_t dim);
  // The transpose of the rotation, for gradients.
  void (*rope_backward)(float* x, const float* cosine, const float* sine, int64_t heads,
                        int64_t dim);

  // h = silu(gate) * up.
  void (*swiglu)(const float* gate, const float* up, int64_t n, float* h);
  // h as above; dgate, dup from dh. Any output may alias its own input.
  void (*swiglu_backward)(const float* gate, const float* up, const float* dh, int64_t n, float* h,
                          float* dgate, float* dup);

  // p = softmax of s[0, n) * scale, zeros in [n, padded); returns max + log(sum). Overwrites s,
  // which p may be.
  float (*softmax)(float* s, float scale, int64_t n, int64_t padded, float* p);
  // p = exp(s * scale - lse), which may alias s, and ds = p * (dp - delta) * scale, which may alias
  // dp; zeros in [n, padded) of both.
  void (*softmax_backward)(const float* s, const float* dp, float scale, float lse, float delta,
                           int64_t n, int64_t padded, float* p, float* ds);
  float (*dot)(const float* a, const float* b, int64_t n);
  double (*square_sum)(const float* a, int64_t n);
  void (*add)(const float* a, int64_t n, float* sum);

  RowStats (*logit_stats)(const float* z, float inverse_temperature, int64_t n);
  // dz = coefficient * (delta_target - softmax(z)), the latter exp(z * inverse_temperature - lse);
  // dz may be z.
  void (*logit_gradient)(const float* z, float inverse_temperature, float lse, float coefficient,
                         int64_t target, int64_t n, float* dz);
  // w = exp((z - max) * inverse_temperature).
  void (*sample_weights)(const float* z, float max, float inverse_temperature, int64_t n, float* w);

  void (*adamw)(float* p, float* g, float* m, float* v, int64_t n, const AdamwScalars& scalars);
  // y = exp(x), for tests: relative error below 2 ulp on [-86, 88]; 0 below, exp(88) above.
  void (*exp)(const float* x, int64_t n, float* y);
};

// nullptr where the compiler or the target has no such instruction set.
const KernelTable* kernels_portable();
const KernelTable* kernels_avx2();
const KernelTable* kernels_avx512();
const KernelTable* kernels_avx512bf16();
const KernelTable* kernels_amx();

// The table in use (see cov_set_cpu_path).
const KernelTable& kernels();

}  // namespace covenant
