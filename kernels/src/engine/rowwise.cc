// Row-parallel operations; the arithmetic is in isa/rows.h.
#include "engine/rowwise.h"

#include <algorithm>
#include <cstring>

#include "engine/isa/table.h"

namespace covenant {
namespace {

constexpr int64_t kColumnsPerTask = 64;  // of an embedding gradient: no two tasks share an element

}  // namespace

void embed(ThreadPool& pool, const float* embedding, const int32_t* tokens, int64_t rows, int64_t d,
           float* x) {
  for_row_blocks(pool, rows, rows * d, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i)
      std::memcpy(x + i * d, embedding + tokens[i] * d, static_cast<size_t>(d) * sizeof(float));
  });
}

void embed_backward(ThreadPool& pool, const float* dx, const int32_t* tokens, int64_t rows,
                    int64_t d, float* dembedding) {
  const KernelTable& kernel = kernels();
  pool.run((d + kColumnsPerTask - 1) / kColumnsPerTask, [&](int64_t task) {
    const int64_t column = task * kColumnsPerTask;
    const int64_t columns = std::min(kColumnsPerTask, d - column);
    for (int64_t i = 0; i < rows; ++i)
      kernel.add(dx + i * d + column, columns, dembedding + tokens[i] * d + column);
  });
}

void rmsnorm(ThreadPool& pool, const float* x, const float* gain, float eps, int64_t rows,
             int64_t d, float* y, float* r) {
  const KernelTable& kernel = kernels();
  for_row_blocks(pool, rows, rows * d, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i)
      r[i] = kernel.rmsnorm(x + i * d, gain, eps, d, y + i * d);
  });
}

void rmsnorm_backward(ThreadPool& pool, const float* x, const float* gain, const float* r,
                      const float* dy, const float* dres, int64_t rows, int64_t d, float* dx,
                      float* dgain, float* partials) {
  const KernelTable& kernel = kernels();
  for_row_blocks(pool, rows, rows * d, [&](int64_t first, int64_t last) {
    float* partial = partials + first / kRowsPerTask * d;
    std::memset(partial, 0, static_cast<size_t>(d) * sizeof(float));
    for (int64_t i = first; i < last; ++i)
      kernel.rmsnorm_backward(x + i * d, gain, dy + i * d, dres + i * d, r[i], d, dx + i * d,
                              partial);
  });
  for (int64_t first = 0; first < rows; first += kRowsPerTask)
    kernel.add(partials + first / kRowsPerTask * d, d, dgain);
}

void rope(ThreadPool& pool, float* x, const int32_t* positions, const float* cosine,
          const float* sine, int64_t rows, int64_t width, int64_t heads, int64_t dim,
          bool backward) {
  const KernelTable& kernel = kernels();
  const auto rotate = backward ? kernel.rope_backward : kernel.rope;
  for_row_blocks(pool, rows, rows * heads * dim, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const int64_t at = positions[i] * (dim / 2);
      rotate(x + i * width, cosine + at, sine + at, heads, dim);
    }
  });
}

void swiglu(ThreadPool& pool, const float* gate_up, int64_t rows, int64_t f, float* h) {
  const KernelTable& kernel = kernels();
  for_row_blocks(pool, rows, rows * f * 4, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i)
      kernel.swiglu(gate_up + i * 2 * f, gate_up + i * 2 * f + f, f, h + i * f);
  });
}

void swiglu_backward(ThreadPool& pool, const float* gate_up, float* dh, int64_t rows, int64_t f,
                     float* dgate_up) {
  const KernelTable& kernel = kernels();
  for_row_blocks(pool, rows, rows * f * 4, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const int64_t at = i * 2 * f;
      kernel.swiglu_backward(gate_up + at, gate_up + at + f, dh + i * f, f, dh + i * f,
                             dgate_up + at, dgate_up + at + f);
    }
  });
}

}  // namespace covenant
