#include "engine/cache.cuh"

#include <cmath>

#include "engine/copy_async.cuh"
#include "engine/math.cuh"

namespace covenant::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = 32 * kWarps;
constexpr int kPagesAhead = 8;  // as many as a block scores at once
constexpr int kParts = kThreads / kPagesAhead;
// What every architecture from sm_80 on has for a block, or less.
constexpr size_t kSharedBytesMax = 96 << 10;

__device__ __forceinline__ void keep(float* at, float x) { *at = x; }
__device__ __forceinline__ void keep(Bf16* at, float x) { *at = nearest_bf16(x); }

// Of a row: the page of a position, from the layer on.
template <typename T>
__device__ __forceinline__ T* layer_of(void* const* pages, int64_t position, int64_t offset) {
  return static_cast<T*>(pages[position / kPagePositions]) + offset;
}

// Fewer blocks than a device has room for do not have enough loads of their own under way: what is read soon is
// brought nearer. This is part `part` of `parts` of the elements [offset, offset + 16 dim) of the page at `position`.
template <typename T>
__device__ __forceinline__ void read_soon(void* const* pages, int64_t position, int64_t count, int64_t offset,
                                          int64_t dim, int part, int parts) {
  if (position >= count) return;
  const auto* const from = reinterpret_cast<const char*>(layer_of<const T>(pages, position, offset));
  for (int64_t at = part * kLineBytes; at < kPagePositions * dim * static_cast<int64_t>(sizeof(T));
       at += parts * kLineBytes)
    prefetch(from + at);
}

template <typename T>
__global__ void append_kernel(const float* qkv, void* const* pages, const int32_t* first,
                              const int32_t* positions, int64_t rows, int64_t offset, int64_t width,
                              int64_t kv_heads, int64_t dim) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t size = kv_heads * dim;
  if (i >= rows * size) return;
  const int64_t row = i / size, head = i % size / dim, at = i % dim;
  const int64_t position = positions[row], slot = position % kPagePositions;
  const float* const key = qkv + (row + 1) * width - 2 * size + head * dim + at;
  T* const to = layer_of<T>(pages + first[row], position, offset) + head * 2 * kPagePositions * dim;
  keep(to + at * kPagePositions + slot, key[0]);
  keep(to + (kPagePositions + slot) * dim + at, key[size]);
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

// Score of a position by a lane, one chain over the elements. Lanes work on neighbouring positions.
template <typename T, int kHeads>
__device__ __forceinline__ Heads<kHeads> score(const T* key, int64_t dim, const Heads<kHeads>* q) {
  Heads<kHeads> sum = {};
#pragma unroll 16
  for (int64_t i = 0; i < dim; ++i) add(sum, q[i], get(key + i * kPagePositions));
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

// Adds kPages pages of one element of values, of which the first `left` positions count; loads are under way together.
template <int kPages, typename T, int kHeads>
__device__ __forceinline__ void weigh_pages(void* const* pages, int64_t offset, int64_t dim, int64_t left,
                                            const Heads<kHeads>* scores, Heads<kHeads>& sum) {
  constexpr int kSlots = static_cast<int>(kPagePositions);
  float values[kPages * kSlots];
#pragma unroll
  for (int p = 0; p < kPages; ++p) {
    const T* const page = layer_of<const T>(pages + p, 0, offset);
#pragma unroll
    for (int slot = 0; slot < kSlots; ++slot)
      values[p * kSlots + slot] = p * kSlots + slot < left ? get(page + slot * dim) : 0.0f;
  }
#pragma unroll
  for (int slot = 0; slot < kPages * kSlots; ++slot)
    if (slot < left) add(sum, scores[slot], values[slot]);
}

// Element `i` of the sums over positions [0, count): page by page, one chain. Values lie at `offset` of each page.
template <typename T, int kHeads>
__device__ __forceinline__ Heads<kHeads> weigh(void* const* pages, int64_t offset, int64_t dim, int64_t i,
                                               int64_t count, const Heads<kHeads>* scores) {
  constexpr int64_t kTogether = 2 * kPagePositions;
  Heads<kHeads> sum = {};
  int64_t j = 0;
  for (; count - j >= kTogether; j += kTogether, pages += 2, scores += kTogether) {
    for (int p = 0; p < 2; ++p)
      read_soon<T>(pages, (kPagesAhead + p) * kPagePositions, count - j, offset, dim, static_cast<int>(threadIdx.x),
                   kThreads);
    weigh_pages<2, T>(pages, offset + i, dim, kTogether, scores, sum);
  }
  for (; j < count; j += kPagePositions, ++pages, scores += kPagePositions)
    weigh_pages<1, T>(pages, offset + i, dim, count - j, scores, sum);
  return sum;
}

// One block for one row and kHeads heads that share their keys and values. The sums have the orders of the CPU's
// attention: scores and values one chain each, the softmax 16 lanes.
template <typename T, int kHeads>
__global__ void __launch_bounds__(kThreads) cached_kernel(
    const float* qkv, void* const* all_pages, const int32_t* first, const int32_t* positions, int64_t offset,
    int64_t heads, int64_t kv_heads, int64_t dim, float scale, float* out) {
  COVENANT_DYNAMIC_SHARED(Heads<kHeads>, q);
  Heads<kHeads>* const scores = q + dim;
  const int64_t row = blockIdx.x;
  const int64_t head = int64_t{blockIdx.y} * kHeads;
  const int64_t count = positions[row] + 1;
  void* const* const pages = all_pages + first[row];
  const float* const queries = qkv + row * (heads + 2 * kv_heads) * dim + head * dim;
  const int64_t keys = offset + head / (heads / kv_heads) * 2 * kPagePositions * dim;
  for (int64_t at = threadIdx.x; at < kHeads * dim; at += kThreads)
    q[at % dim].of[at / dim] = queries[at];
  __syncthreads();
  const int page = static_cast<int>(threadIdx.x) / kParts, part = static_cast<int>(threadIdx.x) % kParts;
  const int64_t values = keys + kPagePositions * dim;
  for (int64_t j = threadIdx.x; j < count; j += kThreads) {
    read_soon<T>(pages, j - threadIdx.x + kThreads + page * kPagePositions, count, keys, dim, part, kParts);
    const T* const key = layer_of<const T>(pages, j, keys) + j % kPagePositions;
    Heads<kHeads> sum = score<T>(key, dim, q);
#pragma unroll
    for (int h = 0; h < kHeads; ++h) sum.of[h] *= scale;
    scores[j] = sum;
  }
  read_soon<T>(pages, page * kPagePositions, count, values, dim, part, kParts);
  __syncthreads();
  const int warp = static_cast<int>(threadIdx.x) / 32;
  if (warp < kHeads) softmax(scores, warp, count);
  __syncthreads();
  for (int64_t i = threadIdx.x; i < dim; i += kThreads) {
    const Heads<kHeads> sum = weigh<T>(pages, values, dim, i, count, scores);
#pragma unroll
    for (int h = 0; h < kHeads; ++h) out[(row * heads + head + h) * dim + i] = sum.of[h];
  }
}

struct CachedCall {
  Stream stream;
  const PagedRows& rows;
  const float* qkv;
  int64_t longest;
  float* out;
};

size_t shared_bytes(int64_t heads, int64_t dim, int64_t longest) {
  return static_cast<size_t>((dim + longest) * heads) * sizeof(float);
}

template <typename T, int kHeads>
void launch(const CachedCall& c) {
  const PagedRows& r = c.rows;
  const AttentionShape& shape = r.shape;
  const size_t bytes = shared_bytes(kHeads, shape.dim, c.longest);
  allow_shared(cached_kernel<T, kHeads>, bytes);
  const dim3 grid(static_cast<unsigned>(r.rows), static_cast<unsigned>(shape.heads / kHeads));
  COVENANT_LAUNCH((cached_kernel<T, kHeads>), grid, kThreads, bytes, c.stream, c.qkv, r.pages, r.first,
                  r.positions, r.offset, shape.heads, shape.kv_heads, shape.dim,
                  1.0f / std::sqrt(static_cast<float>(shape.dim)), c.out);
}

// As many heads of one key as there is shared memory for.
template <typename T>
void attend(const CachedCall& call) {
  const AttentionShape& shape = call.rows.shape;
  const auto fits = [&](int64_t heads) {
    return shape.group() % heads == 0 && shared_bytes(heads, shape.dim, call.longest) <= kSharedBytesMax;
  };
  if (fits(4))
    launch<T, 4>(call);
  else if (fits(2))
    launch<T, 2>(call);
  else
    launch<T, 1>(call);
}

template <typename T>
void append(Stream stream, const PagedRows& r, const float* qkv) {
  const AttentionShape& shape = r.shape;
  COVENANT_LAUNCH(append_kernel<T>, blocks_of(r.rows * shape.kv_heads * shape.dim, 256), 256, 0, stream, qkv,
                  r.pages, r.first, r.positions, r.rows, r.offset, shape.width(), shape.kv_heads, shape.dim);
}

}  // namespace

void cache_append(Stream stream, const PagedRows& rows, const float* qkv) {
  if (rows.bf16)
    append<Bf16>(stream, rows, qkv);
  else
    append<float>(stream, rows, qkv);
}

void attention_cached(Stream stream, const PagedRows& rows, const float* qkv, int64_t longest, float* out) {
  const CachedCall call = {stream, rows, qkv, longest, out};
  if (rows.bf16)
    attend<Bf16>(call);
  else
    attend<float>(call);
}

}  // namespace covenant::cuda
