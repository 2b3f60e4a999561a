#include "engine/rmsnorm.cuh"

#include "engine/math.cuh"
#include "engine/rmsnorm_row.cuh"

namespace covenant::cuda {
namespace {

constexpr unsigned kThreads = 256;
constexpr int64_t kGainRows = 32;  // rows of one partial sum of the gain's gradient

template <typename T>
__global__ void rmsnorm_kernel(const float* x, const int32_t* index, const float* gain, float eps,
                               int64_t rows, int64_t d, T* y, float* r) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * (blockDim.x / kHalf) + threadIdx.x / kHalf;
  const bool live = row < rows;
  const float* in = x + (!live ? 0 : index == nullptr ? row : index[row]) * d;
  const float sum = half_dot(in, in, live ? d : 0);
  if (!live) return;
  const float scale = 1.0f / sqrtf(sum / static_cast<float>(d) + eps);
  for (int64_t i = threadIdx.x % kHalf; i < d; i += kHalf) put(y + row * d + i, in[i] * scale * gain[i]);
  if (threadIdx.x % kHalf == 0 && r != nullptr) r[row] = scale;
}

template <typename T>
__global__ void __launch_bounds__(kNormRowThreads) rmsnorm_row_kernel(const float* x, const int32_t* index,
                                                                      const float* gain, float eps, int64_t d, T* y,
                                                                      float* r) {
  COVENANT_DYNAMIC_SHARED(float, staged);
  const int64_t row = blockIdx.x;
  const float scale = stage_row(x + (index == nullptr ? row : index[row]) * d, d, eps, staged);
  for (int64_t i = threadIdx.x; i < d; i += kNormRowThreads) put(y + row * d + i, staged[i] * scale * gain[i]);
  if (threadIdx.x == 0 && r != nullptr) r[row] = scale;
}

// One block for 32 rows: dx with half a warp for each, then the gain's partial sums with a thread
// for each column; the second reading of x and dy comes from the cache.
template <typename T>
__global__ void rmsnorm_backward_kernel(const float* x, const int32_t* index, const float* gain,
                                        const float* r, const T* dy, const float* dres, int64_t rows,
                                        int64_t d, float* dx, Bf16* rounded, float* partials) {
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kGainRows;
  const int64_t row = first + threadIdx.x / kHalf;
  const bool live = row < rows;
  const int64_t at = (!live ? 0 : index == nullptr ? row : index[row]) * d;
  const T* g = dy + (live ? row : 0) * d;
  float sum = 0.0f;
  if (live) {
    for (int64_t i = threadIdx.x % kHalf; i < d; i += kHalf)
      sum = fmaf(gain[i] * get(g + i), x[at + i], sum);
  }
  sum = half_sum(sum);
  if (live) {
    const float scale = r[row];
    const float along = scale * scale * scale * (sum / static_cast<float>(d));
    for (int64_t i = threadIdx.x % kHalf; i < d; i += kHalf) {
      const float u = gain[i] * get(g + i);
      const float before = dres == nullptr ? 0.0f : dres[at + i];
      const float sum_dx = fmaf(x[at + i], -along, fmaf(u, scale, before));
      dx[at + i] = sum_dx;
      if (rounded != nullptr) rounded[at + i] = to_bf16(sum_dx);
    }
  }
  if (partials == nullptr) return;
  const int64_t last = first + kGainRows < rows ? first + kGainRows : rows;
  for (int64_t i = threadIdx.x; i < d; i += blockDim.x) {
    float partial = 0.0f;
    for (int64_t j = first; j < last; ++j) {
      const int64_t from = (index == nullptr ? j : index[j]) * d;
      partial = fmaf(get(dy + j * d + i), x[from + i] * r[j], partial);
    }
    partials[blockIdx.x * d + i] = partial;
  }
}

__global__ void add_partials_kernel(const float* partials, int64_t count, int64_t d, float* sum) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= d) return;
  float total = sum[i];
  for (int64_t j = 0; j < count; ++j) total += partials[j * d + i];
  sum[i] = total;
}

template <typename T>
void launch(Stream stream, const float* x, const int32_t* index, const float* gain, float eps, int64_t rows,
            int64_t d, T* y, float* r) {
  if (rows <= kNormRowsFew && d <= kNormRowMax)
    COVENANT_LAUNCH((rmsnorm_row_kernel<T>), static_cast<unsigned>(rows), kNormRowThreads,
                    static_cast<size_t>(d) * sizeof(float), stream, x, index, gain, eps, d, y, r);
  else
    COVENANT_LAUNCH((rmsnorm_kernel<T>), blocks_of(rows, kThreads / kHalf), kThreads, 0, stream, x, index, gain,
                    eps, rows, d, y, r);
}

}  // namespace

void rmsnorm(Stream stream, const float* x, const int32_t* index, const float* gain, float eps,
             int64_t rows, int64_t d, Rows y, float* r) {
  if (rows == 0) return;
  if (y.bf16 == nullptr)
    launch(stream, x, index, gain, eps, rows, d, y.f32, r);
  else
    launch(stream, x, index, gain, eps, rows, d, y.bf16, r);
}

void rmsnorm_backward(Stream stream, const float* x, const int32_t* index, const float* gain,
                      const float* r, Rows dy, const float* dres, int64_t rows, int64_t d, float* dx,
                      float* dgain, float* partials, uint16_t* rounded) {
  if (rows == 0) return;
  const unsigned blocks = blocks_of(rows, kGainRows);
  if (dgain == nullptr) partials = nullptr;
  if (dy.bf16 == nullptr)
    COVENANT_LAUNCH((rmsnorm_backward_kernel<float>), blocks, kGainRows * kHalf, 0, stream, x, index,
                    gain, r, dy.f32, dres, rows, d, dx, rounded, partials);
  else
    COVENANT_LAUNCH((rmsnorm_backward_kernel<Bf16>), blocks, kGainRows * kHalf, 0, stream, x, index,
                    gain, r, dy.bf16, dres, rows, d, dx, rounded, partials);
  if (dgain == nullptr) return;
  COVENANT_LAUNCH(add_partials_kernel, blocks_of(d, kThreads), kThreads, 0, stream, partials,
                  static_cast<int64_t>(blocks), d, dgain);
}

}  // namespace covenant::cuda
