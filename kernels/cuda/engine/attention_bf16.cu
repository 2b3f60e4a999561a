#include "engine/attention_bf16.cuh"

#include <cmath>

#include "engine/attention_seen.cuh"

namespace covenant::cuda {
namespace {

using namespace tiles;

constexpr int kKeys = 64;  // of one step

template <int kDim>
struct Shared {
  Bf16 q[kRows * kStride<kDim>];
  Bf16 k[2][kKeys * kStride<kDim>];
  Bf16 v[2][kKeys * kStride<kDim>];
};

// Over the four lanes that share a row.
__device__ __forceinline__ float quad_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
  return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}
__device__ __forceinline__ float quad_sum(float x) {
  x += __shfl_xor_sync(0xffffffffu, x, 1);
  return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

// The running softmax of the two rows of a lane (8 apart).
template <int kDim>
struct Softmax {
  float top[2] = {-kInfinity, -kInfinity};
  float sum[2] = {0.0f, 0.0f};  // this lane's part

  // Scores become weights; what has been summed so far is brought to the new maximum.
  __device__ __forceinline__ void step(float (&s)[kKeys / 8][4], float (&o)[kDim / 8][4], float scale) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float highest = top[r];
#pragma unroll
      for (int j = 0; j < kKeys / 8; ++j)
        highest = fmaxf(highest, fmaxf(s[j][2 * r], s[j][2 * r + 1]));
      highest = quad_max(highest);
      const float shrink = fast_exp2((top[r] - highest) * scale);
      const float shift = highest * scale;
      top[r] = highest;
      sum[r] *= shrink;
#pragma unroll
      for (int j = 0; j < kKeys / 8; ++j) {
#pragma unroll
        for (int e = 2 * r; e < 2 * r + 2; ++e) {
          s[j][e] = fast_exp2(fmaf(s[j][e], scale, -shift));
          sum[r] += s[j][e];
        }
      }
#pragma unroll
      for (int j = 0; j < kDim / 8; ++j) {
        o[j][2 * r] *= shrink;
        o[j][2 * r + 1] *= shrink;
      }
    }
  }
};

// One block for 64 queries of one head, the longest rows first.
template <int kDim>
__global__ void __launch_bounds__(kThreads, kDim <= 32 ? 5 : kDim <= 64 ? 4 : 3)
    forward_kernel(Place at, const Bf16* qkv, float scale,
                                                           Bf16* out, float* lse) {
  COVENANT_DYNAMIC_SHARED(Shared<kDim>, shared);
  const int first = static_cast<int>(gridDim.x - 1 - blockIdx.x) * kRows;
  const int64_t head = blockIdx.y;
  const int64_t kv_head = head / at.group;
  const Strip q = at.strip(qkv, at.width, blockIdx.z, head * at.dim);
  const Strip k = at.strip(qkv, at.width, blockIdx.z, at.keys + kv_head * at.dim);
  const Strip v = at.strip(qkv, at.width, blockIdx.z, at.values + kv_head * at.dim);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int row = static_cast<int>(threadIdx.x) / 32 * 16;
  const int length = static_cast<int>(at.length);
  const int end = first + kRows < length ? first + kRows : length;
  const int steps = (end + kKeys - 1) / kKeys;
  load<kDim, kRows>(shared->q, q, first);
  load<kDim, kKeys>(shared->k[0], k, 0);
  load<kDim, kKeys>(shared->v[0], v, 0);
  copy_async_commit();
  float o[kDim / 8][4] = {};
  Softmax<kDim> softmax;
  for (int step = 0; step < steps; ++step) {
    const int stage = step % 2;
    if (step + 1 < steps) {
      load<kDim, kKeys>(shared->k[1 - stage], k, (step + 1) * kKeys);
      load<kDim, kKeys>(shared->v[1 - stage], v, (step + 1) * kKeys);
    }
    copy_async_commit();
    copy_async_wait<1>();
    __syncthreads();
    float s[kKeys / 8][4];
    compare<kDim, kKeys>(s, shared->q, row, shared->k[stage]);
    // Keys behind the query are not seen; rows behind the end have any finite result.
    if (step * kKeys + kKeys - 1 > first + row) {
#pragma unroll
      for (int j = 0; j < kKeys / 8; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e)
          if (step * kKeys + j * 8 + lane % 4 * 2 + e % 2 > first + row + lane / 4 + e / 2 * 8)
            s[j][e] = -kInfinity;
    }
    softmax.step(s, o, scale);
    weigh_seen<kDim, kKeys>(o, s, shared->v[stage], (first + row - step * kKeys) / 16);
    __syncthreads();
  }
  copy_async_wait<0>();
  const float sums[2] = {quad_sum(softmax.sum[0]), quad_sum(softmax.sum[1])};
  store<kDim>(out + blockIdx.z * at.length * at.out_width + head * at.dim, at.out_width, first + row, end,
              q.dim, o, 1.0f / sums[0], 1.0f / sums[1]);
  for (int r = 0; r < 2; ++r) {
    const int query = first + row + lane / 4 + 8 * r;
    if (lane % 4 == 0 && query < end)
      lse[(blockIdx.z * at.length + query) * at.heads + head] =
          fmaf(softmax.top[r], scale, log2f(sums[r]));
  }
}

template <int kDim>
void launch(Stream stream, const AttentionRows& rows, const Bf16* qkv, Bf16* out, float* lse) {
  const AttentionShape& shape = rows.shape;
  const Place at(rows, aligned(qkv));
  const dim3 grid(blocks_of(rows.length, kRows), static_cast<unsigned>(shape.heads),
                  static_cast<unsigned>(rows.sequences));
  allow_shared(forward_kernel<kDim>, sizeof(Shared<kDim>));
  COVENANT_LAUNCH((forward_kernel<kDim>), grid, kThreads, sizeof(Shared<kDim>), stream, at, qkv,
                  kLog2E / std::sqrt(static_cast<float>(shape.dim)), out, lse);
}

}  // namespace

void attention_bf16(Device& device, const AttentionRows& rows, const uint16_t* qkv, uint16_t* out,
                    float* lse) {
  if (rows.sequences * rows.length == 0) return;
  const int64_t dim = rows.shape.dim;
  (dim <= 32 ? launch<32> : dim <= 64 ? launch<64> : launch<128>)(device.stream(), rows, qkv, out, lse);
}

}  // namespace covenant::cuda
