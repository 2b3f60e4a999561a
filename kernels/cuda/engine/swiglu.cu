#include "engine/swiglu.cuh"

#include "engine/math.cuh"

namespace covenant::cuda {
namespace {

constexpr unsigned kThreads = 256;

template <typename T>
__global__ void swiglu_kernel(const float* gate_up, int64_t rows, int64_t f, T* h) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= rows * f) return;
  const int64_t at = i / f * 2 * f + i % f;
  const float g = gate_up[at];
  put(h + i, g * engine_sigmoid(g) * gate_up[at + f]);
}

template <typename T>
__global__ void swiglu_backward_kernel(const float* gate_up, const float* dh, int64_t rows,
                                       int64_t f, T* h, T* dgate_up) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= rows * f) return;
  const int64_t at = i / f * 2 * f + i % f;
  const float g = gate_up[at];
  const float u = gate_up[at + f];
  const float d = dh[i];
  const float s = engine_sigmoid(g);
  const float silu = g * s;
  const float slope = s * fmaf(g, 1.0f - s, 1.0f);
  put(h + i, silu * u);
  put(dgate_up + at, d * u * slope);
  put(dgate_up + at + f, d * silu);
}

}  // namespace

void swiglu(Stream stream, const float* gate_up, int64_t rows, int64_t f, Rows h) {
  if (rows == 0) return;
  const unsigned blocks = blocks_of(rows * f, kThreads);
  if (h.bf16 == nullptr)
    COVENANT_LAUNCH((swiglu_kernel<float>), blocks, kThreads, 0, stream, gate_up, rows, f, h.f32);
  else
    COVENANT_LAUNCH((swiglu_kernel<Bf16>), blocks, kThreads, 0, stream, gate_up, rows, f, h.bf16);
}

void swiglu_backward(Stream stream, const float* gate_up, const float* dh, int64_t rows, int64_t f,
                     Rows h, Rows dgate_up) {
  if (rows == 0) return;
  const unsigned blocks = blocks_of(rows * f, kThreads);
  if (h.bf16 == nullptr)
    COVENANT_LAUNCH((swiglu_backward_kernel<float>), blocks, kThreads, 0, stream, gate_up, dh, rows,
                    f, h.f32, dgate_up.f32);
  else
    COVENANT_LAUNCH((swiglu_backward_kernel<Bf16>), blocks, kThreads, 0, stream, gate_up, dh, rows,
                    f, h.bf16, dgate_up.bf16);
}

}  // namespace covenant::cuda
