#include <cmath>

#include "engine/attention_bf16.cuh"
#include "engine/attention_seen.cuh"

namespace covenant::cuda {
namespace {

using namespace tiles;

// Rows of the other side in one step: what shared memory and registers have room for.
template <int kDim>
constexpr int kStep = kDim <= 64 ? 64 : 32;

struct Gradients {
  Place at;
  const Bf16 *qkv, *dout;
  const float *lse, *delta;
  float scale;
  Bf16* dqkv;
};

// delta (rows, heads) = out . dout of each head; half a warp for one.
__global__ void delta_kernel(const Bf16* out, const Bf16* dout, int64_t count, int64_t dim,
                             float* delta) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * (blockDim.x / kHalf) + threadIdx.x / kHalf;
  const bool live = at < count;
  const auto* const x = reinterpret_cast<const uint32_t*>(out + (live ? at : 0) * dim);
  const auto* const y = reinterpret_cast<const uint32_t*>(dout + (live ? at : 0) * dim);
  float sum = 0.0f;
  for (int64_t i = threadIdx.x % kHalf; i < (live ? dim / 2 : 0); i += kHalf) {
    sum = fmaf(low_bf16(x[i]), low_bf16(y[i]), sum);
    sum = fmaf(high_bf16(x[i]), high_bf16(y[i]), sum);
  }
  sum = half_sum(sum);
  if (live && threadIdx.x % kHalf == 0) delta[at] = sum;
}

template <int kDim>
struct SharedQueries {
  Bf16 q[kRows * kStride<kDim>];
  Bf16 dout[kRows * kStride<kDim>];
  Bf16 k[2][kStep<kDim> * kStride<kDim>];
  Bf16 v[2][kStep<kDim> * kStride<kDim>];
};

// dq of 64 queries of one head, by steps over their keys.
template <int kDim>
__global__ void __launch_bounds__(kThreads, 4) queries_kernel(Gradients g) {
  constexpr int kKeys = kStep<kDim>;
  COVENANT_DYNAMIC_SHARED(SharedQueries<kDim>, shared);
  const Place& at = g.at;
  const int first = static_cast<int>(gridDim.x - 1 - blockIdx.x) * kRows;
  const int64_t head = blockIdx.y;
  const int64_t kv_head = head / at.group;
  const Strip q = at.strip(g.qkv, at.width, blockIdx.z, head * at.dim);
  const Strip k = at.strip(g.qkv, at.width, blockIdx.z, at.keys + kv_head * at.dim);
  const Strip v = at.strip(g.qkv, at.width, blockIdx.z, at.values + kv_head * at.dim);
  const Strip dout = at.strip(g.dout, at.out_width, blockIdx.z, head * at.dim);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int row = static_cast<int>(threadIdx.x) / 32 * 16;
  const int length = static_cast<int>(at.length);
  const int end = first + kRows < length ? first + kRows : length;
  const int steps = (end + kKeys - 1) / kKeys;
  float lse[2], delta[2];
  for (int r = 0; r < 2; ++r) {
    const int query = first + row + lane / 4 + 8 * r;
    const int64_t from = (blockIdx.z * at.length + query) * at.heads + head;
    lse[r] = query < end ? g.lse[from] : 0.0f;
    delta[r] = query < end ? g.delta[from] : 0.0f;
  }
  load<kDim, kRows>(shared->q, q, first);
  load<kDim, kRows>(shared->dout, dout, first);
  load<kDim, kKeys>(shared->k[0], k, 0);
  load<kDim, kKeys>(shared->v[0], v, 0);
  copy_async_commit();
  float dq[kDim / 8][4] = {};
  for (int step = 0; step < steps; ++step) {
    const int stage = step % 2;
    if (step + 1 < steps) {
      load<kDim, kKeys>(shared->k[1 - stage], k, (step + 1) * kKeys);
      load<kDim, kKeys>(shared->v[1 - stage], v, (step + 1) * kKeys);
    }
    copy_async_commit();
    copy_async_wait<1>();
    __syncthreads();
    float s[kKeys / 8][4], ds[kKeys / 8][4];
    compare<kDim, kKeys>(s, shared->q, row, shared->k[stage]);
    compare<kDim, kKeys>(ds, shared->dout, row, shared->v[stage]);
#pragma unroll
    for (int j = 0; j < kKeys / 8; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int key = step * kKeys + j * 8 + lane % 4 * 2 + e % 2;
        const bool seen = key <= first + row + lane / 4 + e / 2 * 8;
        const float p = seen ? fast_exp2(fmaf(s[j][e], g.scale * kLog2E, -lse[e / 2])) : 0.0f;
        ds[j][e] = seen ? p * (ds[j][e] - delta[e / 2]) : 0.0f;
      }
    }
    weigh_seen<kDim, kKeys>(dq, ds, shared->k[stage], (first + row - step * kKeys) / 16);
    __syncthreads();
  }
  copy_async_wait<0>();
  store<kDim>(g.dqkv + blockIdx.z * at.length * at.width + head * at.dim, at.width, first + row, end, q.dim,
              dq, g.scale, g.scale);
}

template <int kDim>
struct SharedKeys {
  Bf16 k[kRows * kStride<kDim>];
  Bf16 v[kRows * kStride<kDim>];
  Bf16 q[2][kStep<kDim> * kStride<kDim>];
  Bf16 dout[2][kStep<kDim> * kStride<kDim>];
  float lse[2][kStep<kDim>];
  float delta[2][kStep<kDim>];
};

// dk and dv of 64 keys of one kv head, by steps over the heads of its group and the queries that see
// them. Products are of keys by queries, so that their results are the left sides of the next ones.
template <int kDim>
__global__ void __launch_bounds__(kThreads) keys_kernel(Gradients g) {
  constexpr int kQueries = kStep<kDim>;
  COVENANT_DYNAMIC_SHARED(SharedKeys<kDim>, shared);
  const Place& at = g.at;
  const int first = static_cast<int>(blockIdx.x) * kRows;
  const int64_t kv_head = blockIdx.y;
  const int64_t first_row = blockIdx.z * at.length;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int row = static_cast<int>(threadIdx.x) / 32 * 16;
  const int length = static_cast<int>(at.length);
  const int end = first + kRows < length ? first + kRows : length;
  const int each = (length - first + kQueries - 1) / kQueries;
  const int steps = static_cast<int>(at.group) * each;
  const auto bring = [&](int step, int stage) {
    const int64_t head = kv_head * at.group + step / each;
    const int query = first + step % each * kQueries;
    load<kDim, kQueries>(shared->q[stage], at.strip(g.qkv, at.width, blockIdx.z, head * at.dim), query);
    load<kDim, kQueries>(shared->dout[stage],
                         at.strip(g.dout, at.out_width, blockIdx.z, head * at.dim), query);
    for (int i = static_cast<int>(threadIdx.x); i < kQueries; i += kThreads) {
      const bool inside = query + i < length;
      const int64_t from = (first_row + query + i) * at.heads + head;
      shared->lse[stage][i] = inside ? g.lse[from] : 0.0f;
      shared->delta[stage][i] = inside ? g.delta[from] : 0.0f;
    }
  };
  load<kDim, kRows>(shared->k, at.strip(g.qkv, at.width, blockIdx.z, at.keys + kv_head * at.dim), first);
  load<kDim, kRows>(shared->v, at.strip(g.qkv, at.width, blockIdx.z, at.values + kv_head * at.dim), first);
  bring(0, 0);
  copy_async_commit();
  float dk[kDim / 8][4] = {};
  float dv[kDim / 8][4] = {};
  for (int step = 0; step < steps; ++step) {
    const int stage = step % 2;
    if (step + 1 < steps) bring(step + 1, 1 - stage);
    copy_async_commit();
    copy_async_wait<1>();
    __syncthreads();
    const int query = first + step % each * kQueries;
    float p[kQueries / 8][4], ds[kQueries / 8][4];
    compare<kDim, kQueries>(p, shared->k, row, shared->q[stage]);
    compare<kDim, kQueries>(ds, shared->v, row, shared->dout[stage]);
#pragma unroll
    for (int j = 0; j < kQueries / 8; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int i = j * 8 + lane % 4 * 2 + e % 2;
        const bool seen =
            first + row + lane / 4 + e / 2 * 8 <= query + i && query + i < length;
        p[j][e] = seen ? fast_exp2(fmaf(p[j][e], g.scale * kLog2E, -shared->lse[stage][i])) : 0.0f;
        ds[j][e] = seen ? p[j][e] * (ds[j][e] - shared->delta[stage][i]) : 0.0f;
      }
    }
    weigh<kDim, kQueries>(dv, p, shared->dout[stage]);
    weigh<kDim, kQueries>(dk, ds, shared->q[stage]);
    __syncthreads();
  }
  copy_async_wait<0>();
  Bf16* const to = g.dqkv + first_row * at.width;
  const int dim = static_cast<int>(at.dim);
  store<kDim>(to + at.keys + kv_head * at.dim, at.width, first + row, end, dim, dk, g.scale, g.scale);
  store<kDim>(to + at.values + kv_head * at.dim, at.width, first + row, end, dim, dv, 1.0f, 1.0f);
}

template <int kDim>
void launch(Stream stream, const AttentionRows& rows, const Gradients& gradients) {
  const unsigned blocks = blocks_of(rows.length, kRows);
  const auto sequences = static_cast<unsigned>(rows.sequences);
  allow_shared(keys_kernel<kDim>, sizeof(SharedKeys<kDim>));
  COVENANT_LAUNCH((keys_kernel<kDim>),
                  dim3(blocks, static_cast<unsigned>(rows.shape.kv_heads), sequences), kThreads,
                  sizeof(SharedKeys<kDim>), stream, gradients);
  allow_shared(queries_kernel<kDim>, sizeof(SharedQueries<kDim>));
  COVENANT_LAUNCH((queries_kernel<kDim>),
                  dim3(blocks, static_cast<unsigned>(rows.shape.heads), sequences), kThreads,
                  sizeof(SharedQueries<kDim>), stream, gradients);
}

}  // namespace

void attention_bf16_backward(Device& device, const AttentionRows& rows, const uint16_t* qkv,
                             const uint16_t* out, const float* lse, const uint16_t* dout,
                             uint16_t* dqkv) {
  const int64_t dim = rows.shape.dim;
  const int64_t count = rows.sequences * rows.length * rows.shape.heads;
  if (count == 0) return;
  const Arena::Scope scope(device.scratch());
  float* const delta = device.scratch().take<float>(static_cast<uint64_t>(count));
  const Stream stream = device.stream();
  COVENANT_LAUNCH(delta_kernel, blocks_of(count, 256 / kHalf), 256, 0, stream, out, dout, count, dim,
                  delta);
  const Place at(rows, aligned(qkv) && aligned(dout));
  const Gradients gradients = {
      at, qkv, dout, lse, delta, 1.0f / std::sqrt(static_cast<float>(dim)), dqkv};
  (dim <= 32 ? launch<32> : dim <= 64 ? launch<64> : launch<128>)(stream, rows, gradients);
}

}  // namespace covenant::cuda
