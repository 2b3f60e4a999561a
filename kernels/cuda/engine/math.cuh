// Device arithmetic with the bits of the CPU's row kernels (src/engine/isa): IEEE operations and
// fused multiply-adds only, sums over a row in 16 running sums (lane = index mod 16) folded by
// halves. Half a warp stands for the 16 lanes.
#pragma once

#include "runtime/platform.h"

namespace covenant::cuda {

using Bf16 = uint16_t;

constexpr unsigned kHalf = 16;  // threads that share one row
constexpr float kInfinity = __builtin_inff();

// exp as on the CPU (simd.h): 0 below -86, exp(88) above 88, NaN stays.
__device__ inline float engine_exp(float x) {
  const float magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  const float top = 88.0f < x ? 88.0f : x;
  const float t = fmaf(top, 1.44269504088896341f, magic);
  const float n = t - magic;
  float r = fmaf(n, -0.693359375f, top);
  r = fmaf(n, 2.12194440e-4f, r);
  float p = 1.9875691500e-4f;
  p = fmaf(p, r, 1.3981999507e-3f);
  p = fmaf(p, r, 8.3334519073e-3f);
  p = fmaf(p, r, 4.1665795894e-2f);
  p = fmaf(p, r, 1.6666665459e-1f);
  p = fmaf(p, r, 5.0000001201e-1f);
  p = fmaf(p, r * r, r) + 1.0f;
  const float scaled = __uint_as_float(__float_as_uint(p) + (__float_as_uint(t) << 23));
  return x < -86.0f ? 0.0f : scaled;
}

__device__ inline float engine_sigmoid(float x) { return 1.0f / (1.0f + engine_exp(0.0f - x)); }

// log of a positive normal number in double, as on the CPU (rows.h); others come back as they are.
__device__ inline double engine_log(double x) {
  const unsigned long long raw = static_cast<unsigned long long>(__double_as_longlong(x));
  if (!(x > 0.0) || x > 1.7976931348623157e308) return x;
  long long exponent = static_cast<long long>(raw >> 52) - 1022;
  double m = __longlong_as_double(
      static_cast<long long>((raw & 0x000fffffffffffffull) | 0x3fe0000000000000ull));
  if (m < 0.70710678118654752) {
    m *= 2.0;
    --exponent;
  }
  const double t = (m - 1.0) / (m + 1.0);
  const double t2 = t * t;
  double series = 0.0;
  for (int power = 21; power >= 3; power -= 2) series = (series + 1.0 / power) * t2;
  return static_cast<double>(exponent) * 0.693147180559945309 + 2.0 * (t + t * series);
}

// To nearest even; subnormal numbers become zeros, NaN stays NaN (round.h).
__device__ inline Bf16 to_bf16(float x) {
  const uint32_t u = __float_as_uint(x);
  const uint32_t exponent = u & 0x7f800000u;
  if (exponent == 0) return static_cast<Bf16>(u >> 16 & 0x8000u);
  if (exponent == 0x7f800000u && (u & 0x7fffffu) != 0) return static_cast<Bf16>(u >> 16 | 0x40u);
  return static_cast<Bf16>((u + 0x7fffu + (u >> 16 & 1u)) >> 16);
}

// To nearest even as generation rounds (generate/weights.h): subnormal numbers stay.
__device__ inline Bf16 nearest_bf16(float x) {
  const uint32_t u = __float_as_uint(x);
  if ((u & 0x7fffffffu) > 0x7f800000u) return static_cast<Bf16>(u >> 16 | 0x40u);
  return static_cast<Bf16>((u + 0x7fffu + (u >> 16 & 1u)) >> 16);
}

__device__ inline void put(float* at, float value) { *at = value; }
__device__ inline void put(Bf16* at, float value) { *at = to_bf16(value); }
__device__ inline float from_bf16(Bf16 x) { return __uint_as_float(static_cast<uint32_t>(x) << 16); }
__device__ inline float get(const float* at) { return *at; }
__device__ inline float get(const Bf16* at) { return from_bf16(*at); }

// Over the 16 threads of half a warp; all of the warp take part and each gets its half's result.
__device__ inline float half_sum(float value) {
  for (int step = 8; step > 0; step /= 2) value += __shfl_xor_sync(0xffffffffu, value, step, 16);
  return value;
}
__device__ inline float half_max(float value) {
  for (int step = 8; step > 0; step /= 2) {
    const float other = __shfl_xor_sync(0xffffffffu, value, step, 16);
    value = value > other ? value : other;
  }
  return value;
}

// a . b by the 16 threads of half a warp; `n` may be 0 for threads without a row.
__device__ inline float half_dot(const float* a, const float* b, int64_t n) {
  float sum = 0.0f;
  for (int64_t i = threadIdx.x % kHalf; i < n; i += kHalf) sum = fmaf(a[i], b[i], sum);
  return half_sum(sum);
}

inline unsigned blocks_of(int64_t count, int64_t each) {
  return static_cast<unsigned>((count + each - 1) / each);
}

}  // namespace covenant::cuda
