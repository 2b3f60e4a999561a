#include "engine/cache.cuh"

#include <cmath>

#include "engine/math.cuh"

namespace covenant::cuda {
namespace {

constexpr unsigned kThreads = 128;

__global__ void append_kernel(float* cache, const float* qkv, const int32_t* slots,
                              const int32_t* positions, int64_t rows, int64_t capacity,
                              int64_t width, int64_t size) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= rows * size) return;
  const int64_t row = i / size;
  cache[(slots[row] * capacity + positions[row]) * size + i % size] =
      qkv[(row + 1) * width - size + i % size];
}

// One block for one row and head. The sums have the orders of the CPU's attention: scores and values
// one chain each, the softmax 16 lanes.
__global__ void __launch_bounds__(kThreads) cached_kernel(
    const float* cache, const float* qkv, const int32_t* slots, const int32_t* positions,
    int64_t capacity, int64_t heads, int64_t kv_heads, int64_t dim, float scale, float* out) {
  COVENANT_DYNAMIC_SHARED(float, scores);
  const int64_t row = blockIdx.x;
  const int64_t head = blockIdx.y;
  const int64_t count = positions[row] + 1;
  const int64_t size = 2 * kv_heads * dim;
  const float* const q = qkv + row * (heads * dim + size) + head * dim;
  const float* const keys =
      cache + slots[row] * capacity * size + head / (heads / kv_heads) * dim;
  const float* const values = keys + kv_heads * dim;
  for (int64_t j = threadIdx.x; j < count; j += blockDim.x) {
    float sum = 0.0f;
    for (int64_t i = 0; i < dim; ++i) sum = fmaf(q[i], keys[j * size + i], sum);
    scores[j] = sum * scale;
  }
  __syncthreads();
  if (threadIdx.x < 32) {
    // The second half of the warp goes along with nothing to do.
    const int64_t lane = threadIdx.x;
    const int64_t n = lane < kHalf ? count : 0;
    float top = -kInfinity;
    for (int64_t j = lane; j < n; j += kHalf) top = top > scores[j] ? top : scores[j];
    top = half_max(top);
    float sum = 0.0f;
    for (int64_t j = lane; j < n; j += kHalf) {
      scores[j] = engine_exp(scores[j] - top);
      sum += scores[j];
    }
    const float inverse = 1.0f / half_sum(sum);
    for (int64_t j = lane; j < n; j += kHalf) scores[j] *= inverse;
  }
  __syncthreads();
  for (int64_t i = threadIdx.x; i < dim; i += blockDim.x) {
    float sum = 0.0f;
    for (int64_t j = 0; j < count; ++j) sum = fmaf(scores[j], values[j * size + i], sum);
    out[(row * heads + head) * dim + i] = sum;
  }
}

}  // namespace

void cache_append(Stream stream, const CacheLayer& cache, const float* qkv, const int32_t* slots,
                  const int32_t* positions, int64_t rows) {
  const int64_t size = cache.position_size();
  COVENANT_LAUNCH(append_kernel, blocks_of(rows * size, 256), 256, 0, stream, cache.data, qkv, slots,
                  positions, rows, cache.capacity, cache.shape.width(), size);
}

void attention_cached(Stream stream, const CacheLayer& cache, const float* qkv, const int32_t* slots,
                      const int32_t* positions, int64_t rows, int64_t longest, float* out) {
  const AttentionShape& shape = cache.shape;
  const size_t bytes = static_cast<size_t>(longest) * sizeof(float);
  // More than 48 KiB of shared memory have to be asked for.
  if (bytes > 48 << 10)
    (void)cudaFuncSetAttribute(cached_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(bytes));
  COVENANT_LAUNCH(cached_kernel,
                  dim3(static_cast<unsigned>(rows), static_cast<unsigned>(shape.heads)), kThreads,
                  bytes, stream, cache.data, qkv, slots, positions, cache.capacity, shape.heads,
                  shape.kv_heads, shape.dim, 1.0f / std::sqrt(static_cast<float>(shape.dim)), out);
}

}  // namespace covenant::cuda
