#include "engine/cache.cuh"

#include <cmath>

#include "engine/copy_async.cuh"
#include "engine/math.cuh"

namespace covenant::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = 32 * kWarps;
constexpr int kTileRow = 33;  // floats: lanes that read down a column hit all banks
constexpr int kTileSize = 32 * kTileRow;
// What every architecture from sm_80 on has for a block, or less.
constexpr size_t kSharedBytesMax = 96 << 10;

__global__ void append_kernel(float* cache, const float* qkv, const int32_t* slots,
                              const int32_t* positions, int64_t rows, int64_t capacity,
                              int64_t width, int64_t size) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= rows * size) return;
  const int64_t row = i / size;
  cache[(slots[row] * capacity + positions[row]) * size + i % size] =
      qkv[(row + 1) * width - size + i % size];
}

// A number of each head that a thread works for, read at once.
template <int kHeads>
struct alignas(kHeads * sizeof(float)) Heads {
  float of[kHeads];
};

// Adds a key's or value's element to the sums of all heads.
template <int kHeads>
__device__ __forceinline__ void add(Heads<kHeads>& sum, const Heads<kHeads>& weight, float x) {
#pragma unroll
  for (int h = 0; h < kHeads; ++h) sum.of[h] = fmaf(weight.of[h], x, sum.of[h]);
}

// Scores of 32 positions by the lanes of a warp, one chain over the elements each. Keys come by way of `tile`, so
// that neighbouring lanes read neighbouring elements; without it (null) each lane reads its own key.
template <int kHeads>
__device__ __forceinline__ Heads<kHeads> score(const float* keys, int64_t size, int64_t first, int64_t count,
                                               int64_t dim, const Heads<kHeads>* q, float* tile) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  Heads<kHeads> sum = {};
  if (tile == nullptr) {
    const float* const key = keys + (first + lane) * size;
    for (int64_t i = 0; first + lane < count && i < dim; ++i) add(sum, q[i], key[i]);
    return sum;
  }
  for (int64_t from = 0; from < dim; from += 32) {
#pragma unroll
    for (int r = 0; r < 32; ++r) {
      const bool inside = first + r < count && from + lane < dim;
      tile[r * kTileRow + lane] = inside ? keys[(first + r) * size + from + lane] : 0.0f;
    }
    __syncwarp();
    const int depth = dim - from < 32 ? static_cast<int>(dim - from) : 32;
    for (int i = 0; i < depth; ++i) add(sum, q[from + i], tile[lane * kTileRow + i]);
    __syncwarp();
  }
  return sum;
}

// Softmax of one head's scores by a warp, whose second half goes along with nothing to do.
template <int kHeads>
__device__ __forceinline__ void softmax(Heads<kHeads>* scores, int head, int64_t count) {
  const int64_t lane = threadIdx.x % 32;
  const int64_t n = lane < kHalf ? count : 0;
  float top = -kInfinity;
  for (int64_t j = lane; j < n; j += kHalf) {
    const float x = scores[j].of[head];
    top = top > x ? top : x;
  }
  top = half_max(top);
  float sum = 0.0f;
  for (int64_t j = lane; j < n; j += kHalf) {
    const float x = engine_exp(scores[j].of[head] - top);
    scores[j].of[head] = x;
    sum += x;
  }
  const float inverse = 1.0f / half_sum(sum);
  for (int64_t j = lane; j < n; j += kHalf) scores[j].of[head] *= inverse;
}

// One block for one row and kHeads heads that share their keys and values. The sums have the orders of the CPU's
// attention: scores and values one chain each, the softmax 16 lanes.
template <int kHeads, bool kTiled>
__global__ void __launch_bounds__(kThreads) cached_kernel(
    const float* cache, const float* qkv, const int32_t* slots, const int32_t* positions,
    int64_t capacity, int64_t heads, int64_t kv_heads, int64_t dim, float scale, float* out) {
  COVENANT_DYNAMIC_SHARED(float, tiles);
  auto* const q = reinterpret_cast<Heads<kHeads>*>(tiles + (kTiled ? kWarps * kTileSize : 0));
  Heads<kHeads>* const scores = q + dim;
  const int64_t row = blockIdx.x;
  const int64_t head = int64_t{blockIdx.y} * kHeads;
  const int64_t count = positions[row] + 1;
  const int64_t size = 2 * kv_heads * dim;
  const float* const queries = qkv + row * (heads * dim + size) + head * dim;
  const float* const keys = cache + slots[row] * capacity * size + head / (heads / kv_heads) * dim;
  const float* const values = keys + kv_heads * dim;
  for (int64_t at = threadIdx.x; at < kHeads * dim; at += kThreads)
    q[at % dim].of[at / dim] = queries[at];
  __syncthreads();
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  for (int64_t first = warp * 32; first < count; first += kThreads) {
    Heads<kHeads> sum = score(keys, size, first, count, dim, q, kTiled ? tiles + warp * kTileSize : nullptr);
#pragma unroll
    for (int h = 0; h < kHeads; ++h) sum.of[h] *= scale;
    if (first + lane < count) scores[first + lane] = sum;
  }
  __syncthreads();
  if (warp < kHeads) softmax(scores, warp, count);
  __syncthreads();
  for (int64_t i = threadIdx.x; i < dim; i += kThreads) {
    Heads<kHeads> sum = {};
#pragma unroll 16
    for (int64_t j = 0; j < count; ++j) add(sum, scores[j], values[j * size + i]);
#pragma unroll
    for (int h = 0; h < kHeads; ++h) out[(row * heads + head + h) * dim + i] = sum.of[h];
  }
}

struct CachedCall {
  Stream stream;
  const CacheLayer& cache;
  const float* qkv;
  const int32_t *slots, *positions;
  int64_t rows, longest;
  float* out;
};

template <int kHeads, bool kTiled>
size_t shared_bytes(int64_t dim, int64_t longest) {
  return static_cast<size_t>((dim + longest) * kHeads + (kTiled ? kWarps * kTileSize : 0)) * sizeof(float);
}

template <int kHeads, bool kTiled>
void launch(const CachedCall& c) {
  const AttentionShape& shape = c.cache.shape;
  const size_t bytes = shared_bytes<kHeads, kTiled>(shape.dim, c.longest);
  allow_shared(cached_kernel<kHeads, kTiled>, bytes);
  const dim3 grid(static_cast<unsigned>(c.rows), static_cast<unsigned>(shape.heads / kHeads));
  COVENANT_LAUNCH((cached_kernel<kHeads, kTiled>), grid, kThreads, bytes, c.stream, c.cache.data, c.qkv, c.slots,
                  c.positions, c.cache.capacity, shape.heads, shape.kv_heads, shape.dim,
                  1.0f / std::sqrt(static_cast<float>(shape.dim)), c.out);
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
  const CachedCall call = {stream, cache, qkv, slots, positions, rows, longest, out};
  const int64_t dim = cache.shape.dim, group = cache.shape.group();
  // As many heads of one key as there is shared memory for.
  if (group % 4 == 0 && shared_bytes<4, true>(dim, longest) <= kSharedBytesMax)
    launch<4, true>(call);
  else if (group % 2 == 0 && shared_bytes<2, true>(dim, longest) <= kSharedBytesMax)
    launch<2, true>(call);
  else if (shared_bytes<1, true>(dim, longest) <= kSharedBytesMax)
    launch<1, true>(call);
  else
    launch<1, false>(call);
}

}  // namespace covenant::cuda
