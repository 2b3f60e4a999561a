#include "engine/rope.cuh"

#include "engine/math.cuh"

namespace covenant::cuda {
namespace {

constexpr unsigned kThreads = 256;

template <bool kBackward, typename T>
__global__ void rope_kernel(T* x, const int32_t* positions, const float* cosine,
                            const float* sine, int64_t rows, int64_t width, int64_t heads,
                            int64_t half) {
  const int64_t pair = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t each = heads * half;
  if (pair >= rows * each) return;
  const int64_t row = pair / each;
  const int64_t i = pair % each % half;
  T* const at = x + row * width + pair % each / half * (2 * half) + i;
  const float c = cosine[positions[row] * half + i];
  const float s = sine[positions[row] * half + i];
  const float a = get(at);
  const float b = get(at + half);
  put(at, kBackward ? a * c + b * s : a * c - b * s);
  put(at + half, kBackward ? b * c - a * s : b * c + a * s);
}

}  // namespace

template <typename T>
void rope(Stream stream, T* x, const int32_t* positions, const float* cosine, const float* sine,
          int64_t rows, int64_t width, int64_t heads, int64_t dim, bool backward) {
  if (rows == 0) return;
  const unsigned blocks = blocks_of(rows * heads * (dim / 2), kThreads);
  if (backward)
    COVENANT_LAUNCH((rope_kernel<true, T>), blocks, kThreads, 0, stream, x, positions, cosine, sine,
                    rows, width, heads, dim / 2);
  else
    COVENANT_LAUNCH((rope_kernel<false, T>), blocks, kThreads, 0, stream, x, positions, cosine, sine,
                    rows, width, heads, dim / 2);
}

template void rope<float>(Stream, float*, const int32_t*, const float*, const float*, int64_t, int64_t,
                          int64_t, int64_t, bool);
template void rope<Bf16>(Stream, Bf16*, const int32_t*, const float*, const float*, int64_t, int64_t,
                         int64_t, int64_t, bool);

}  // namespace covenant::cuda
