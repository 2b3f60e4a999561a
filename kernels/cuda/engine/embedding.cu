#include "engine/embedding.cuh"

#include <algorithm>
#include <numeric>

#include "engine/math.cuh"

namespace covenant::cuda {
namespace {

constexpr unsigned kThreads = 256;

template <typename T>
__global__ void embed_kernel(const T* embedding, const int32_t* tokens, int64_t d, float* x) {
  const int64_t row = blockIdx.x;
  const T* from = embedding + static_cast<int64_t>(tokens[row]) * d;
  for (int64_t i = threadIdx.x; i < d; i += blockDim.x) x[row * d + i] = get(from + i);
}

template <typename T>
void launch(Stream stream, const T* embedding, const int32_t* tokens, int64_t rows, int64_t d, float* x) {
  if (rows == 0) return;
  COVENANT_LAUNCH((embed_kernel<T>), static_cast<unsigned>(rows), kThreads, 0, stream, embedding, tokens, d, x);
}

__global__ void embed_backward_kernel(const float* dx, const int32_t* tokens, const int32_t* starts,
                                      const int32_t* rows, int64_t d, float sign,
                                      float* dembedding) {
  const int32_t first = starts[blockIdx.x];
  const int32_t last = starts[blockIdx.x + 1];
  float* const to = dembedding + static_cast<int64_t>(tokens[blockIdx.x]) * d;
  for (int64_t i = threadIdx.x; i < d; i += blockDim.x) {
    float sum = to[i];
    for (int32_t j = first; j < last; ++j) sum += sign * dx[static_cast<int64_t>(rows[j]) * d + i];
    to[i] = sum;
  }
}

}  // namespace

TokenBuckets::TokenBuckets(const int32_t* row_tokens, int64_t count)
    : rows(static_cast<size_t>(count)) {
  std::iota(rows.begin(), rows.end(), 0);
  std::stable_sort(rows.begin(), rows.end(),
                   [=](int32_t a, int32_t b) { return row_tokens[a] < row_tokens[b]; });
  for (int64_t i = 0; i < count; ++i) {
    const int32_t token = row_tokens[rows[static_cast<size_t>(i)]];
    if (!tokens.empty() && tokens.back() == token) continue;
    tokens.push_back(token);
    starts.push_back(static_cast<int32_t>(i));
  }
  starts.push_back(static_cast<int32_t>(count));
}

void embed(Stream stream, const float* embedding, const int32_t* tokens, int64_t rows, int64_t d,
           float* x) {
  launch(stream, embedding, tokens, rows, d, x);
}

void embed(Stream stream, const uint16_t* embedding, const int32_t* tokens, int64_t rows, int64_t d,
           float* x) {
  launch(stream, embedding, tokens, rows, d, x);
}

void embed_backward(Stream stream, const float* dx, const int32_t* tokens, const int32_t* starts,
                    const int32_t* rows, int64_t buckets, int64_t d, float* dembedding,
                    float sign) {
  if (buckets == 0) return;
  COVENANT_LAUNCH(embed_backward_kernel, static_cast<unsigned>(buckets), kThreads, 0, stream, dx,
                  tokens, starts, rows, d, sign, dembedding);
}

}  // namespace covenant::cuda
