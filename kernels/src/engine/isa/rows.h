// Row kernels: RMSNorm, rotary embedding, SwiGLU, softmax, logits, AdamW. Shapes are one row of n
// floats unless said otherwise; see table.h for what each computes.
#pragma once

#include "engine/isa/round.h"
#include "engine/isa/simd.h"
#include "engine/isa/table.h"

namespace covenant {
namespace COV_ISA {

static float dot(const float* a, const float* b, int64_t n) {
  V sum = set(0.0f);
  for_lanes(n, [&](int64_t i, int64_t m) __attribute__((always_inline)) {
    sum = fma(get(a + i, m), get(b + i, m), sum);
  });
  return sum_lanes(sum);
}

static void add_row(const float* a, int64_t n, float* sum) {
  for_lanes(n, [&](int64_t i, int64_t m) __attribute__((always_inline)) {
    put(sum + i, add(get(sum + i, m), get(a + i, m)), m);
  });
}

// Blocks of 256 in fp32 lanes, then double: short chains keep the error small.
static double square_sum(const float* a, int64_t n) {
  double total = 0.0;
  for (int64_t i = 0; i < n; i += 256) total += dot(a + i, a + i, n - i < 256 ? n - i : 256);
  return total;
}

// ---- RMSNorm -----------------------------------------------------------------------------------

template <typename T>
static float rmsnorm(const float* x, const float* gain, float eps, int64_t n, T* y) {
  const float r = 1.0f / __builtin_sqrtf(dot(x, x, n) / (float)n + eps);
  const V scale = set(r);
  for_lanes(n, [&](int64_t i, int64_t m) __attribute__((always_inline)) {
    put(y + i, mul(mul(get(x + i, m), scale), get(gain + i, m)), m);
  });
  return r;
}

static void rmsnorm_backward(const float* x, const float* gain, const float* dy, const float* dres,
                             float r, int64_t n, float* dx, float* dgain) {
  V sum = set(0.0f);
  for_lanes(n, [&](int64_t i, int64_t m) __attribute__((always_inline)) {
    sum = fma(mul(get(gain + i, m), get(dy + i, m)), get(x + i, m), sum);
  });
  const float along = r * r * r * (sum_lanes(sum) / (float)n);
  const V scale = set(r), minus = set(-along);
  for_lanes(n, [&](int64_t i, int64_t m) __attribute__((always_inline)) {
    const V vx = get(x + i, m), vdy = get(dy + i, m);
    const V u = mul(get(gain + i, m), vdy);
    put(dgain + i, fma(vdy, mul(vx, scale), get(dgain + i, m)), m);
    put(dx + i, fma(vx, minus, fma(u, scale, get(dres + i, m))), m);
  });
}

// ---- rotary embedding --------------------------------------------------------------------------

COV_INLINE void rotate(float* x, const float* cosine, const float* sine, int64_t heads, int64_t dim,
                       bool inverse) {
  const int64_t half = dim / 2;
  for (int64_t h = 0; h < heads; ++h, x += dim) {
    for_lanes(half, [&](int64_t i, int64_t m) __attribute__((always_inline)) {
      const V a = get(x + i, m), b = get(x + half + i, m);
      const V c = get(cosine + i, m), s = get(sine + i, m);
      const V as = mul(a, s), bs = mul(b, s), ac = mul(a, c), bc = mul(b, c);
      put(x + i, inverse ? add(ac, bs) : sub(ac, bs), m);
      put(x + half + i, inverse ? sub(bc, as) : add(bc, as), m);
    });
  }
}
static void rope(float* x, const float* cosine, const float* sine, int64_t heads, int64_t dim) {
  rotate(x, cosine, sine, heads, dim, false);
}
static void rope_backward(float* x, const float* cosine, const float* sine, int64_t heads,
                          int64_t dim) {
  rotate(x, cosine, sine, heads, dim, true);
}

// ---- SwiGLU ------------------------------------------------------------------------------------

COV_INLINE V sigmoid(V x) { return div(set(1.0f), add(set(1.0f), vexp(sub(set(0.0f), x)))); }

template <typename T>
static void swiglu(const float* gate, const float* up, int64_t n, T* h) {
  for_lanes(n, [&](int64_t i, int64_t m) __attribute__((always_inline)) {
    const V g = get(gate + i, m);
    put(h + i, mul(mul(g, sigmoid(g)), get(up + i, m)), m);
  });
}

template <typename T>
static void swiglu_backward(const float* gate, const float* up, const float* dh, int64_t n, T* h,
                            T* dgate, T* dup) {
  for_lanes(n, [&](int64_t i, int64_t m) __attribute__((always_inline)) {
    const V g = get(gate + i, m), u = get(up + i, m), d = get(dh + i, m);
    const V s = sigmoid(g), silu = mul(g, s);
    const V slope = mul(s, fma(g, sub(set(1.0f), s), set(1.0f)));
    put(h + i, mul(silu, u), m);
    put(dgate + i, mul(mul(d, u), slope), m);
    put(dup + i, mul(d, silu), m);
  });
}

// ---- softmax -----------------------------------------------------------------------------------

// Natural logarithm in double from IEEE operations only: x = m 2^e with m in [sqrt(1/2), sqrt(2)),
// log m = 2 atanh((m - 1) / (m + 1)) by its series, error below 2 ulp.
static double logarithm(double x) {
  if (!(x > 0.0) || x > 1.7976931348623157e308) return x == 0.0 ? -__builtin_inf() : x;
  uint64_t bits;
  __builtin_memcpy(&bits, &x, 8);
  int64_t exponent = (int64_t)(bits >> 52) - 1022;  // callers pass normal numbers
  bits = (bits & 0x000fffffffffffffull) | 0x3fe0000000000000ull;
  double m;
  __builtin_memcpy(&m, &bits, 8);
  if (m < 0.70710678118654752) {
    m *= 2.0;
    --exponent;
  }
  const double t = (m - 1.0) / (m + 1.0), t2 = t * t;
  double series = 0.0;
  for (int power = 21; power >= 3; power -= 2) series = (series + 1.0 / power) * t2;
  return (double)exponent * 0.693147180559945309 + 2.0 * (t + t * series);
}

template <typename T>
static float softmax(float* s, float scale, int64_t n, int64_t padded, T* p) {
  const V vscale = set(scale);
  V top = set(-__builtin_inff());
  for_lanes(n, [&](int64_t i, int64_t m) __attribute__((always_inline)) {
    const V x = mul(get(s + i, m), vscale);
    put(s + i, x, m);
    top = largest(top, m == kLanes ? x : keep(x, m, set(-__builtin_inff())));
  });
  const float max = max_lanes(top);
  const V vmax = set(max);
  V sum = set(0.0f);
  for_lanes(n, [&](int64_t i, int64_t m) __attribute__((always_inline)) {
    V e = vexp(sub(get(s + i, m), vmax));
    if (m != kLanes) e = keep(e, m, set(0.0f));
    put(s + i, e, m);
    sum = add(sum, e);
  });
  const float total = sum_lanes(sum);
  const V inverse = set(1.0f / total);
  for_lanes(n, [&](int64_t i, int64_t m)
                   __attribute__((always_inline)) { put(p + i, mul(get(s + i, m), inverse), m); });
  for (int64_t i = n; i < padded; ++i) p[i] = 0;
  return (float)((double)max + logarithm((double)total));
}

template <typename T>
static void softmax_backward(const float* s, const float* dp, float scale, float lse, float delta,
                             int64_t n, int64_t padded, T* p, T* ds) {
  const V vscale = set(scale), vlse = set(lse), vdelta = set(delta);
  for_lanes(n, [&](int64_t i, int64_t m) __attribute__((always_inline)) {
    const V x = vexp(sub(mul(get(s + i, m), vscale), vlse));
    put(p + i, x, m);
    put(ds + i, mul(mul(x, sub(get(dp + i, m), vdelta)), vscale), m);
  });
  for (int64_t i = n; i < padded; ++i) p[i] = 0, ds[i] = 0;
}

// ---- logits ------------------------------------------------------------------------------------

static RowStats logit_stats(const float* z, float inverse_temperature, int64_t n) {
  const V scale = set(inverse_temperature);
  V top = set(-__builtin_inff());
  for_lanes(n, [&](int64_t i, int64_t m) __attribute__((always_inline)) {
    const V x = mul(get(z + i, m), scale);
    top = largest(top, m == kLanes ? x : keep(x, m, set(-__builtin_inff())));
  });
  const float max = max_lanes(top);
  const V vmax = set(max);
  V sum = set(0.0f), product = set(0.0f);
  for_lanes(n, [&](int64_t i, int64_t m) __attribute__((always_inline)) {
    const V x = sub(mul(get(z + i, m), scale), vmax);
    V e = vexp(x);
    if (m != kLanes) e = keep(e, m, set(0.0f));
    sum = add(sum, e);
    product = fma(e, x, product);
  });
  return {max, sum_lanes(sum), sum_lanes(product)};
}

template <typename T>
static void logit_gradient(const float* z, float inverse_temperature, float lse, float coefficient,
                           int64_t target, int64_t n, T* dz) {
  const V scale = set(inverse_temperature), vlse = set(lse), factor = set(-coefficient);
  const auto gradient = [&](int64_t i, int64_t m) __attribute__((always_inline)) {
    return mul(vexp(sub(mul(get(z + i, m), scale), vlse)), factor);
  };
  const V at_target = add(gradient(target, 1), set(coefficient));
  for_lanes(n, [&](int64_t i, int64_t m)
                   __attribute__((always_inline)) { put(dz + i, gradient(i, m), m); });
  put(dz + target, at_target, 1);
}

static void sample_weights(const float* z, float max, float inverse_temperature, int64_t n,
                           float* w) {
  const V vmax = set(max), scale = set(inverse_temperature);
  for_lanes(n, [&](int64_t i, int64_t m) __attribute__((always_inline)) {
    put(w + i, vexp(mul(sub(get(z + i, m), vmax), scale)), m);
  });
}

static void exp_row(const float* x, int64_t n, float* y) {
  for_lanes(n, [&](int64_t i, int64_t m)
                   __attribute__((always_inline)) { put(y + i, vexp(get(x + i, m)), m); });
}

// ---- AdamW -------------------------------------------------------------------------------------

static void adamw(float* p, float* g, float* m, float* v, int64_t n, const AdamwScalars& a) {
  const V decay = set(a.decay), b1 = set(a.beta1), c1 = set(a.one_minus_beta1);
  const V b2 = set(a.beta2), c2 = set(a.one_minus_beta2), size = set(-a.step_size);
  const V bias2 = set(a.inv_bias2), epsilon = set(a.epsilon), clip = set(a.grad_scale);
  for_lanes(n, [&](int64_t i, int64_t l) __attribute__((always_inline)) {
    const V grad = mul(get(g + i, l), clip);
    const V first = fma(grad, c1, mul(get(m + i, l), b1));
    const V second = fma(mul(grad, grad), c2, mul(get(v + i, l), b2));
    const V denominator = fma(root(second), bias2, epsilon);
    put(m + i, first, l);
    put(v + i, second, l);
    put(p + i, fma(div(first, denominator), size, mul(get(p + i, l), decay)), l);
    put(g + i, set(0.0f), l);
  });
}

}  // namespace COV_ISA
}  // namespace covenant
