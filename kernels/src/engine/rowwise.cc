// The loops over rows; the arithmetic is in isa/rows.h.
#include "engine/rowwise.h"

#include <algorithm>
#include <cstring>

#include "engine/isa/table.h"

namespace covenant {
namespace {

constexpr int64_t kColumnsPerTask = 64;  // of an embedding gradient: no two tasks share an element

}  // namespace

void embed(const float* embedding, const int32_t* tokens, int64_t d, float* x, RowRange range) {
  for (int64_t i = range.first; i < range.last; ++i)
    std::memcpy(x + i * d, embedding + tokens[i] * d, static_cast<size_t>(d) * sizeof(float));
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

Bf16* bf16_row_of(Operand x, int64_t i, int64_t k) {
  Bf16* const row = x.bf16 + i * bf16_row(k);
  std::fill(row + k, row + bf16_padded(k), Bf16{0});
  return row;
}

void clear_padding(Operand x, int64_t rows, int64_t k) {
  if (x.bf16 == nullptr) return;
  for (int64_t i = 0; i < rows; ++i) (void)bf16_row_of(x, i, k);
}

float rmsnorm_row(const KernelTable& kernel, const float* x, const float* gain, float eps,
                  int64_t d, Operand y, int64_t row) {
  return y.bf16 == nullptr ? kernel.rmsnorm(x, gain, eps, d, y.f32 + row * d)
                           : kernel.rmsnorm_bf16(x, gain, eps, d, bf16_row_of(y, row, d));
}

void rmsnorm(const float* x, const float* gain, float eps, int64_t d, Operand y, float* r,
             RowRange range) {
  const KernelTable& kernel = kernels();
  for (int64_t i = range.first; i < range.last; ++i)
    r[i] = rmsnorm_row(kernel, x + i * d, gain, eps, d, y, i);
}

void rmsnorm_backward(ThreadPool& pool, const float* x, const float* gain, const float* r,
                      const float* dy, const float* dres, int64_t rows, int64_t d, float* dx,
                      float* dgain, float* partials, Bf16* rounded) {
  const KernelTable& kernel = kernels();
  for_row_blocks(pool, rows, rows * d, [&](int64_t first, int64_t last) {
    float* partial = partials + first / kRowsPerTask * d;
    std::memset(partial, 0, static_cast<size_t>(d) * sizeof(float));
    for (int64_t i = first; i < last; ++i) {
      kernel.rmsnorm_backward(x + i * d, gain, dy + i * d, dres + i * d, r[i], d, dx + i * d,
                              partial);
      round_row(dx, i, d, rounded);
    }
  });
  for (int64_t first = 0; dgain != nullptr && first < rows; first += kRowsPerTask)
    kernel.add(partials + first / kRowsPerTask * d, d, dgain);
}

void rope(float* x, const int32_t* positions, const float* cosine, const float* sine, int64_t width,
          int64_t heads, int64_t dim, RowRange range) {
  const KernelTable& kernel = kernels();
  for (int64_t i = range.first; i < range.last; ++i) {
    const int64_t at = positions[i] * (dim / 2);
    kernel.rope(x + i * width, cosine + at, sine + at, heads, dim);
  }
}

void swiglu(const float* gate_up, int64_t f, Operand h, RowRange range) {
  const KernelTable& kernel = kernels();
  for (int64_t i = range.first; i < range.last; ++i) {
    const float* gate = gate_up + i * 2 * f;
    if (h.bf16 == nullptr)
      kernel.swiglu(gate, gate + f, f, h.f32 + i * f);
    else
      kernel.swiglu_bf16(gate, gate + f, f, bf16_row_of(h, i, f));
  }
}

void swiglu_backward(ThreadPool& pool, const float* gate_up, const float* dh, int64_t rows,
                     int64_t f, Operand h, Operand dgate_up) {
  const KernelTable& kernel = kernels();
  for_row_blocks(pool, rows, rows * f * 4, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const float* gate = gate_up + i * 2 * f;
      if (h.bf16 == nullptr) {
        float* const dgate = dgate_up.f32 + i * 2 * f;
        kernel.swiglu_backward(gate, gate + f, dh + i * f, f, h.f32 + i * f, dgate, dgate + f);
      } else {
        Bf16* const dgate = bf16_row_of(dgate_up, i, 2 * f);
        kernel.swiglu_backward_bf16(gate, gate + f, dh + i * f, f, bf16_row_of(h, i, f), dgate,
                                    dgate + f);
      }
    }
  });
}

}  // namespace covenant
