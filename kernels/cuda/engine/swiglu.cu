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

// What one element's backward gives.
struct Gradient {
  float h, gate, up;
  __device__ Gradient(float g, float u, float d) {
    const float s = engine_sigmoid(g);
    const float silu = g * s;
    const float slope = s * fmaf(g, 1.0f - s, 1.0f);
    h = silu * u;
    gate = d * u * slope;
    up = d * silu;
  }
};

__global__ void swiglu_backward_kernel(const float* gate_up, const float* dh, int64_t rows,
                                       int64_t f, float* h, float* dgate_up) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= rows * f) return;
  const int64_t at = i / f * 2 * f + i % f;
  const Gradient gradient(gate_up[at], gate_up[at + f], dh[i]);
  h[i] = gradient.h;
  dgate_up[at] = gradient.gate;
  dgate_up[at + f] = gradient.up;
}

// kEach neighbouring elements at once: 16 bytes where lines allow it.
template <int kEach>
struct __align__(2 * kEach) Run {
  Bf16 values[kEach];
};
template <int kEach>
__device__ Run<kEach> run_at(const Bf16* from) {
  return *reinterpret_cast<const Run<kEach>*>(from);
}
template <int kEach>
__device__ void put_run(Bf16* to, const Run<kEach>& run) {
  *reinterpret_cast<Run<kEach>*>(to) = run;
}

template <int kEach>
__global__ void swiglu_bf16_kernel(const Bf16* gate_up, int64_t rows, int64_t f, Bf16* h) {
  const int64_t i = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * kEach;
  if (i >= rows * f) return;
  const int64_t at = i / f * 2 * f + i % f;
  const Run<kEach> gate = run_at<kEach>(gate_up + at);
  const Run<kEach> up = run_at<kEach>(gate_up + at + f);
  Run<kEach> out;
  for (int e = 0; e < kEach; ++e) {
    const float g = from_bf16(gate.values[e]);
    out.values[e] = to_bf16(g * engine_sigmoid(g) * from_bf16(up.values[e]));
  }
  put_run(h + i, out);
}

template <int kEach>
__global__ void swiglu_bf16_backward_kernel(const Bf16* gate_up, const Bf16* dh, int64_t rows, int64_t f,
                                            Bf16* h, Bf16* dgate_up) {
  const int64_t i = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * kEach;
  if (i >= rows * f) return;
  const int64_t at = i / f * 2 * f + i % f;
  const Run<kEach> gate = run_at<kEach>(gate_up + at);
  const Run<kEach> up = run_at<kEach>(gate_up + at + f);
  const Run<kEach> d = run_at<kEach>(dh + i);
  Run<kEach> out, dgate, dup;
  for (int e = 0; e < kEach; ++e) {
    const Gradient gradient(from_bf16(gate.values[e]), from_bf16(up.values[e]), from_bf16(d.values[e]));
    out.values[e] = to_bf16(gradient.h);
    dgate.values[e] = to_bf16(gradient.gate);
    dup.values[e] = to_bf16(gradient.up);
  }
  put_run(h + i, out);
  put_run(dgate_up + at, dgate);
  put_run(dgate_up + at + f, dup);
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
                     float* h, float* dgate_up) {
  if (rows == 0) return;
  COVENANT_LAUNCH(swiglu_backward_kernel, blocks_of(rows * f, kThreads), kThreads, 0, stream, gate_up,
                  dh, rows, f, h, dgate_up);
}

// Every buffer is aligned to 16 bytes.
void swiglu_bf16(Stream stream, const uint16_t* gate_up, int64_t rows, int64_t f, uint16_t* h) {
  if (rows == 0) return;
  if (f % 8 == 0)
    COVENANT_LAUNCH((swiglu_bf16_kernel<8>), blocks_of(rows * f, 8 * kThreads), kThreads, 0, stream,
                    gate_up, rows, f, h);
  else
    COVENANT_LAUNCH((swiglu_bf16_kernel<1>), blocks_of(rows * f, kThreads), kThreads, 0, stream, gate_up,
                    rows, f, h);
}

void swiglu_bf16_backward(Stream stream, const uint16_t* gate_up, const uint16_t* dh, int64_t rows,
                          int64_t f, uint16_t* h, uint16_t* dgate_up) {
  if (rows == 0) return;
  if (f % 8 == 0)
    COVENANT_LAUNCH((swiglu_bf16_backward_kernel<8>), blocks_of(rows * f, 8 * kThreads), kThreads, 0,
                    stream, gate_up, dh, rows, f, h, dgate_up);
  else
    COVENANT_LAUNCH((swiglu_bf16_backward_kernel<1>), blocks_of(rows * f, kThreads), kThreads, 0, stream,
                    gate_up, dh, rows, f, h, dgate_up);
}

}  // namespace covenant::cuda
