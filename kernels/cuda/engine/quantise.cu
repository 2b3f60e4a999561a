#include "engine/quantise.cuh"

#include "engine/copy_async.cuh"
#include "engine/gemm_int8.cuh"
#include "engine/math.cuh"
#include "engine/rmsnorm.cuh"
#include "engine/rmsnorm_row.cuh"
#include "engine/swiglu.cuh"

namespace covenant::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kGateThreads = 512;
constexpr int64_t kGateRowMax = 24 << 10;  // elements: 96 KiB of shared memory
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

// A row by all threads of a block.
template <bool kAligned>
__device__ __forceinline__ void quantise_row(const float* row, int64_t k, int64_t stride, int8_t* bytes, float* scale) {
  __shared__ unsigned of_warps[32];
  const int64_t each = 4 * blockDim.x;
  unsigned top = 0;
  for (int64_t i = 4 * threadIdx.x; i < k; i += each) top = max(top, largest_bits(four_at<kAligned>(row, i, k)));
  top = __reduce_max_sync(0xffffffffu, top);
  if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = top;
  __syncthreads();
  for (unsigned w = 0; w < blockDim.x / 32; ++w) top = max(top, of_warps[w]);
  const float largest = __uint_as_float(top);
  const bool finite = top < kInfinityBits;
  const bool usable = finite && largest >= 1e-30f;
  const float inverse = usable ? 127.0f / largest : 0.0f;
  auto* const to = reinterpret_cast<uint32_t*>(bytes);
  for (int64_t i = 4 * threadIdx.x; i < stride; i += each) {
    const float4 v = four_at<kAligned>(row, i, k);
    const unsigned packed = byte_of(v.x, inverse) | byte_of(v.y, inverse) << 8 | byte_of(v.z, inverse) << 16 |
                            byte_of(v.w, inverse) << 24;
    to[i / 4] = usable ? packed : 0u;
  }
  if (threadIdx.x == 0) *scale = usable ? largest / 127.0f : finite ? 0.0f : __uint_as_float(0x7fc00000u);
}

template <bool kAligned>
__global__ void __launch_bounds__(kThreads) quantise_kernel(const float* x, int64_t k, int64_t stride, int8_t* bytes,
                                                            float* scales) {
  const int64_t row = blockIdx.x;
  quantise_row<kAligned>(x + row * k, k, stride, bytes + row * stride, scales + row);
}

// Rows in shared memory are filled up with zeros to a multiple of 4.
int64_t filled(int64_t k) { return (k + 3) / 4 * 4; }

__global__ void __launch_bounds__(kNormRowThreads) rmsnorm_quantise_kernel(const float* x, const int32_t* index,
                                                                           const float* gain, float eps, int64_t d,
                                                                           int64_t stride, int8_t* bytes,
                                                                           float* scales) {
  COVENANT_DYNAMIC_SHARED(float, staged);
  const int64_t row = blockIdx.x;
  const float scale = stage_row(x + (index == nullptr ? row : index[row]) * d, d, eps, staged);
  for (int64_t i = threadIdx.x; i < (d + 3) / 4 * 4; i += kNormRowThreads)
    staged[i] = i < d ? staged[i] * scale * gain[i] : 0.0f;
  __syncthreads();
  quantise_row<true>(staged, d, stride, bytes + row * stride, scales + row);
}

__global__ void __launch_bounds__(kGateThreads) swiglu_quantise_kernel(const float* gate_up, int64_t f, int64_t stride,
                                                                       int8_t* bytes, float* scales) {
  COVENANT_DYNAMIC_SHARED(float, staged);
  const int64_t row = blockIdx.x;
  const float* const gate = gate_up + row * 2 * f;
  for (int64_t i = threadIdx.x; i < (f + 3) / 4 * 4; i += kGateThreads) {
    const float g = i < f ? gate[i] : 0.0f;
    staged[i] = i < f ? g * engine_sigmoid(g) * gate[f + i] : 0.0f;
  }
  __syncthreads();
  quantise_row<true>(staged, f, stride, bytes + row * stride, scales + row);
}

__device__ __forceinline__ void put_rounded(Bf16* at, float x) { *at = nearest_bf16(x); }
__device__ __forceinline__ void put_rounded(float* at, float x) { *at = from_bf16(nearest_bf16(x)); }

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

void rmsnorm_quantise(Stream stream, const float* x, const int32_t* index, const float* gain, float eps, int64_t rows,
                      int64_t d, float* values, int8_t* bytes, float* scales) {
  if (rows == 0) return;
  if (d > kNormRowMax) {
    rmsnorm(stream, x, index, gain, eps, rows, d, {values, nullptr}, nullptr);
    return quantise(stream, values, rows, d, bytes, scales);
  }
  COVENANT_LAUNCH(rmsnorm_quantise_kernel, static_cast<unsigned>(rows), kNormRowThreads,
                  static_cast<size_t>(filled(d)) * sizeof(float), stream, x, index, gain, eps, d, int8_stride(d), bytes,
                  scales);
}

void swiglu_quantise(Stream stream, const float* gate_up, int64_t rows, int64_t f, float* values, int8_t* bytes,
                     float* scales) {
  if (rows == 0) return;
  if (f > kGateRowMax) {
    swiglu(stream, gate_up, rows, f, {values, nullptr});
    return quantise(stream, values, rows, f, bytes, scales);
  }
  const size_t shared = static_cast<size_t>(filled(f)) * sizeof(float);
  allow_shared(swiglu_quantise_kernel, shared);
  COVENANT_LAUNCH(swiglu_quantise_kernel, static_cast<unsigned>(rows), kGateThreads, shared, stream, gate_up, f,
                  int8_stride(f), bytes, scales);
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
