#include "engine/head.cuh"

#include "engine/math.cuh"

namespace covenant::cuda {
namespace {

constexpr unsigned kThreads = 128;

template <bool kBackward>
__global__ void score_kernel(HeadRows h, float* logits, Bf16* dz16, const float* coefficients,
                             float constant) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * (blockDim.x / kHalf) + threadIdx.x / kHalf;
  const bool live = row < h.rows;
  const int64_t lane = threadIdx.x % kHalf;
  float* const z = logits + (live ? row : 0) * h.vocab;
  const int64_t n = live ? h.vocab : 0;
  const float scale = h.inverse_temperature;
  float top = -kInfinity;
  for (int64_t i = lane; i < n; i += kHalf) {
    const float x = z[i] * scale;
    top = top > x ? top : x;
  }
  top = half_max(top);
  float sum = 0.0f;
  float product = 0.0f;
  for (int64_t i = lane; i < n; i += kHalf) {
    const float x = z[i] * scale - top;
    const float e = engine_exp(x);
    sum += e;
    product = fmaf(e, x, product);
  }
  sum = half_sum(sum);
  product = half_sum(product);
  const double log_sum = engine_log(static_cast<double>(sum));
  const double lse = static_cast<double>(top) + log_sum;
  const int32_t target = live ? h.targets[row] : 0;
  if (live && lane == 0) {
    h.log_probs[row] = static_cast<float>(static_cast<double>(z[target] * scale) - lse);
    h.entropy[row] = static_cast<float>(log_sum - static_cast<double>(product) /
                                                      static_cast<double>(sum));
    if (h.log_sums != nullptr) h.log_sums[row] = lse;
    if (!(fabs(lse) <= 1.7976931348623157e308)) atomicExch(h.non_finite, 1);
  }
  if constexpr (kBackward) {
    // The target's logit has been read before it changes.
    __syncwarp();
    const float c = (coefficients == nullptr ? constant : coefficients[live ? row : 0]) * scale;
    const float row_lse = static_cast<float>(lse);
    for (int64_t i = lane; i < n; i += kHalf) {
      float d = engine_exp(z[i] * scale - row_lse) * -c;
      if (i == target) d += c;
      z[i] = d;
      if (dz16 != nullptr) dz16[row * h.vocab + i] = to_bf16(d);
    }
  }
}

}  // namespace

void score_logits(Stream stream, const HeadRows& rows, const float* z) {
  if (rows.rows == 0) return;
  COVENANT_LAUNCH((score_kernel<false>), blocks_of(rows.rows, kThreads / kHalf), kThreads, 0, stream,
                  rows, const_cast<float*>(z), static_cast<Bf16*>(nullptr),
                  static_cast<const float*>(nullptr), 0.0f);
}

void score_logits_backward(Stream stream, const HeadRows& rows, float* z, uint16_t* dz16,
                           const float* coefficients, float constant) {
  if (rows.rows == 0) return;
  COVENANT_LAUNCH((score_kernel<true>), blocks_of(rows.rows, kThreads / kHalf), kThreads, 0, stream,
                  rows, z, dz16, coefficients, constant);
}

}  // namespace covenant::cuda
