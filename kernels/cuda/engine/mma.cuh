// What a warp needs for products on the tensor cores, and its emulated form.
//
// mma_bf16: D (16, 8) += A (16, 16) B (16, 8), bf16 operands, fp32 sums.
//
// With g = lane / 4 and t = lane % 4, a lane holds, in pairs of neighbouring k (the lower one in the low
// half): a[0] A(g, 2t), a[1] A(g + 8, 2t), a[2] A(g, 2t + 8), a[3] A(g + 8, 2t + 8); b[0] B(2t, g),
// b[1] B(2t + 8, g); and of D: d[0], d[1] D(g, 2t), d[2], d[3] D(g + 8, 2t).
//
// mma_s8: D (16, 8) += A (16, 32) B (32, 8), signed bytes, exact sums of 32 bits. Registers hold fours of
// neighbouring k where mma_bf16 has pairs: a[0] A(g, 4t), a[1] A(g + 8, 4t), a[2] A(g, 4t + 16), ...
//
// load_matrices: four matrices of 8 rows of 8 bf16 from shared memory. Lane i says where row i % 8 of
// matrix i / 8 lies (16 bytes, aligned); r[j] is (g, 2t), (g, 2t + 1) of matrix j, or transposed (2t, g),
// (2t + 1, g).
#pragma once

#include "engine/math.cuh"

namespace covenant::cuda {

#if defined(__CUDACC__)

__device__ __forceinline__ void mma_bf16(float (&d)[4], const uint32_t (&a)[4],
                                         const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ __forceinline__ void mma_s8(int32_t (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};\n"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

template <bool kTransposed>
__device__ __forceinline__ void load_matrices(uint32_t (&r)[4], const Bf16* row) {
  const auto at = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  if constexpr (kTransposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}

// Two numbers rounded to bf16, the first in the low half.
__device__ __forceinline__ uint32_t pair_bf16(float low, float high) {
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;\n" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}

// 2^x to about 2 ulp.
__device__ __forceinline__ float fast_exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(y) : "f"(x));
  return y;
}

#else

// What lanes of a warp hold for one product: lanes[i][0..3] of A, [4..5] of B.
using ShownLanes = uint32_t (&)[32][6];
inline ShownLanes show_lanes(const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  static uint32_t shown[32][32][6];  // by warp of the block
  const unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  auto& lanes = shown[thread / 32];
  const unsigned lane = thread % 32;
  __syncwarp();
  for (int i = 0; i < 4; ++i) lanes[lane][i] = a[i];
  for (int i = 0; i < 2; ++i) lanes[lane][4 + i] = b[i];
  __syncwarp();
  return lanes;
}

// d[i] = add(d[i], the registers of A and B at each of the 8 places along k).
template <typename Sum, typename Add>
void emulated_mma(Sum (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], const Add& add) {
  const ShownLanes lanes = show_lanes(a, b);
  const unsigned lane = threadIdx.x % 32;
  for (unsigned i = 0; i < 4; ++i) {
    const unsigned row = lane / 4 + i / 2 * 8;
    const unsigned column = lane % 4 * 2 + i % 2;
    for (unsigned k = 0; k < 8; ++k)
      d[i] = add(d[i], lanes[row % 8 * 4 + k % 4][row / 8 + k / 4 * 2], lanes[column * 4 + k % 4][4 + k / 4]);
  }
  __syncwarp();
}

// Sums k in ascending order with one rounding each; the hardware's order and rounding are its own.
inline void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  const auto low = [](uint32_t pair) { return __uint_as_float(pair << 16); };
  const auto high = [](uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); };
  emulated_mma(d, a, b, [&](float sum, uint32_t x, uint32_t y) {
    return fmaf(high(x), high(y), fmaf(low(x), low(y), sum));
  });
}

inline void mma_s8(int32_t (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  emulated_mma(d, a, b, [](int32_t sum, uint32_t x, uint32_t y) {
    for (int i = 0; i < 32; i += 8) sum += static_cast<int8_t>(x >> i) * static_cast<int8_t>(y >> i);
    return sum;
  });
}

template <bool kTransposed>
void load_matrices(uint32_t (&r)[4], const Bf16* row) {
  static const Bf16* shown[32][32];  // by warp of the block
  const unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  auto& rows = shown[thread / 32];
  const unsigned lane = thread % 32;
  __syncwarp();
  rows[lane] = row;
  __syncwarp();
  const unsigned g = lane / 4, t = lane % 4;
  for (unsigned j = 0; j < 4; ++j) {
    const Bf16* const* const matrix = rows + 8 * j;
    const Bf16 low = kTransposed ? matrix[2 * t][g] : matrix[g][2 * t];
    const Bf16 high = kTransposed ? matrix[2 * t + 1][g] : matrix[g][2 * t + 1];
    r[j] = static_cast<uint32_t>(high) << 16 | low;
  }
  __syncwarp();
}

inline uint32_t pair_bf16(float low, float high) {
  return static_cast<uint32_t>(to_bf16(high)) << 16 | to_bf16(low);
}

inline float fast_exp2(float x) { return std::exp2(x); }

#endif

__device__ inline float low_bf16(uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ inline float high_bf16(uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }

}  // namespace covenant::cuda
