#include "engine/optimizer.cuh"

#include "engine/math.cuh"

namespace covenant::cuda {
namespace {

constexpr int64_t kShort = 256;  // gradients of one fp32 sum
constexpr unsigned kThreads = 256;

__global__ void square_sums_kernel(const float* gradients, int64_t count, double* sums) {
  __shared__ float parts[kAdamwChunk / kShort];
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kAdamwChunk;
  const int64_t last = first + kAdamwChunk < count ? first + kAdamwChunk : count;
  // Every half warp takes part in every sum, with nothing to add behind the end.
  for (int64_t part = threadIdx.x / kHalf; part < kAdamwChunk / kShort; part += blockDim.x / kHalf) {
    const int64_t at = first + part * kShort;
    const int64_t n = at >= last ? 0 : last - at < kShort ? last - at : kShort;
    const float* const g = gradients + (n > 0 ? at : 0);
    const float sum = half_dot(g, g, n);
    if (threadIdx.x % kHalf == 0) parts[part] = sum;
  }
  __syncthreads();
  if (threadIdx.x != 0) return;
  double total = 0.0;
  for (int64_t part = 0; part < kAdamwChunk / kShort; ++part)
    total += static_cast<double>(parts[part]);
  sums[blockIdx.x] = total;
}

__global__ void adamw_kernel(const AdamwRange* ranges, float* p, float* g, float* m, float* v,
                             Bf16* shadow, AdamwScalars a) {
  const AdamwRange range = ranges[blockIdx.x];
  const float decay = range.decay ? a.decay : 1.0f;
  for (int64_t i = range.first + threadIdx.x; i < range.first + range.count; i += blockDim.x) {
    const float grad = g[i] * a.grad_scale;
    const float first = fmaf(grad, a.one_minus_beta1, m[i] * a.beta1);
    const float second = fmaf(grad * grad, a.one_minus_beta2, v[i] * a.beta2);
    const float denominator = fmaf(sqrtf(second), a.inv_bias2, a.epsilon);
    const float next = fmaf(first / denominator, -a.step_size, p[i] * decay);
    m[i] = first;
    v[i] = second;
    p[i] = next;
    g[i] = 0.0f;
    if (shadow != nullptr) shadow[i] = to_bf16(next);
  }
}

__global__ void to_bf16_kernel(const float* x, int64_t count, Bf16* shadow) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < count) shadow[i] = to_bf16(x[i]);
}

__global__ void to_f32_kernel(const Bf16* x, int64_t count, float* out) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < count) out[i] = from_bf16(x[i]);
}

}  // namespace

void square_sums(Stream stream, const float* gradients, int64_t count, double* sums) {
  COVENANT_LAUNCH(square_sums_kernel, blocks_of(count, kAdamwChunk), kThreads, 0, stream, gradients,
                  count, sums);
}

void adamw(Stream stream, const AdamwRange* ranges, int64_t range_count, float* p, float* g,
           float* m, float* v, uint16_t* shadow, const AdamwScalars& scalars) {
  COVENANT_LAUNCH(adamw_kernel, static_cast<unsigned>(range_count), kThreads, 0, stream, ranges, p,
                  g, m, v, shadow, scalars);
}

void to_bf16(Stream stream, const float* x, int64_t count, uint16_t* shadow) {
  if (count == 0) return;
  COVENANT_LAUNCH(to_bf16_kernel, blocks_of(count, kThreads), kThreads, 0, stream, x, count, shadow);
}

void to_f32(Stream stream, const uint16_t* x, int64_t count, float* out) {
  if (count == 0) return;
  COVENANT_LAUNCH(to_f32_kernel, blocks_of(count, kThreads), kThreads, 0, stream, x, count, out);
}

}  // namespace covenant::cuda
