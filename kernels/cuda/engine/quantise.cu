#include "engine/quantise.cuh"

#include "engine/gemm_int8.cuh"
#include "engine/math.cuh"

namespace covenant::cuda {
namespace {

constexpr int kThreads = 256;
constexpr unsigned kInfinityBits = 0x7f800000u;

// Four neighbours of a row of k, zeros from k on; in one access where rows lie at 16 bytes.
template <bool kAligned>
__device__ __forceinline__ float4 four_at(const float* row, int64_t i, int64_t k) {
  if constexpr (kAligned) return i < k ? *reinterpret_cast<const float4*>(row + i) : make_float4(0, 0, 0, 0);
  const auto at = [&](int64_t j) { return j < k ? row[j] : 0.0f; };
  return make_float4(at(i), at(i + 1), at(i + 2), at(i + 3));
}

// Of the magnitudes, as bits: they have the order of numbers, with infinities and NaN above all.
__device__ __forceinline__ unsigned largest_bits(float4 x) {
  const auto bits = [](float y) { return __float_as_uint(y) & 0x7fffffffu; };
  return max(max(bits(x.x), bits(x.y)), max(bits(x.z), bits(x.w)));
}

// 1.5 * 2^23 + q has q, rounded half to even, in its low bits.
__device__ __forceinline__ unsigned byte_of(float x, float inverse) {
  return __float_as_uint(x * inverse + 12582912.0f) & 0xffu;
}

template <bool kAligned>
__global__ void __launch_bounds__(kThreads) quantise_kernel(const float* x, int64_t k, int64_t stride, int8_t* bytes,
                                                            float* scales) {
  __shared__ unsigned of_warps[kThreads / 32];
  const float* const row = x + blockIdx.x * k;
  unsigned top = 0;
  for (int64_t i = 4 * threadIdx.x; i < k; i += 4 * kThreads)
    top = max(top, largest_bits(four_at<kAligned>(row, i, k)));
  top = __reduce_max_sync(0xffffffffu, top);
  if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = top;
  __syncthreads();
#pragma unroll
  for (int w = 0; w < kThreads / 32; ++w) top = max(top, of_warps[w]);
  const float largest = __uint_as_float(top);
  const bool finite = top < kInfinityBits;
  const bool usable = finite && largest >= 1e-30f;
  const float inverse = usable ? 127.0f / largest : 0.0f;
  auto* const to = reinterpret_cast<uint32_t*>(bytes + blockIdx.x * stride);
  for (int64_t i = 4 * threadIdx.x; i < stride; i += 4 * kThreads) {
    const float4 v = four_at<kAligned>(row, i, k);
    const unsigned packed = byte_of(v.x, inverse) | byte_of(v.y, inverse) << 8 | byte_of(v.z, inverse) << 16 |
                            byte_of(v.w, inverse) << 24;
    to[i / 4] = usable ? packed : 0u;
  }
  if (threadIdx.x == 0)
    scales[blockIdx.x] = usable ? largest / 127.0f : finite ? 0.0f : __uint_as_float(0x7fc00000u);
}

__device__ __forceinline__ Bf16 rounded_weight(float x) {
  const uint32_t u = __float_as_uint(x);
  if ((u & 0x7fffffffu) > kInfinityBits) return static_cast<Bf16>(u >> 16 | 0x40u);
  return static_cast<Bf16>((u + 0x7fffu + (u >> 16 & 1u)) >> 16);
}
__device__ __forceinline__ void put_rounded(Bf16* at, float x) { *at = rounded_weight(x); }
__device__ __forceinline__ void put_rounded(float* at, float x) { *at = from_bf16(rounded_weight(x)); }

template <typename T>
__global__ void __launch_bounds__(kThreads) round_kernel(const float* x, int64_t count, T* to) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < count) put_rounded(to + i, x[i]);
}

}  // namespace

void quantise(Stream stream, const float* x, int64_t rows, int64_t k, int8_t* bytes, float* scales) {
  if (rows == 0) return;
  const bool aligned = k % 4 == 0 && reinterpret_cast<uintptr_t>(x) % 16 == 0;
  if (aligned)
    COVENANT_LAUNCH((quantise_kernel<true>), static_cast<unsigned>(rows), kThreads, 0, stream, x, k, int8_stride(k),
                    bytes, scales);
  else
    COVENANT_LAUNCH((quantise_kernel<false>), static_cast<unsigned>(rows), kThreads, 0, stream, x, k, int8_stride(k),
                    bytes, scales);
}

void round_weights(Stream stream, const float* x, int64_t count, uint16_t* rounded) {
  if (count == 0) return;
  COVENANT_LAUNCH((round_kernel<Bf16>), blocks_of(count, kThreads), kThreads, 0, stream, x, count, rounded);
}

void round_weights(Stream stream, const float* x, int64_t count, float* rounded) {
  if (count == 0) return;
  COVENANT_LAUNCH((round_kernel<float>), blocks_of(count, kThreads), kThreads, 0, stream, x, count, rounded);
}

}  // namespace covenant::cuda
