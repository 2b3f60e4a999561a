// Operations applied row by row: RMSNorm, rotary embedding, SwiGLU, embedding lookup. Forward on the
// rows that one thread has, backward in parallel over fixed blocks of rows.
#pragma once

#include <cstdint>

#include "core/thread_pool.h"
#include "engine/gemm.h"

namespace covenant {

constexpr int64_t kRowsPerTask = 32;

// Rows that are cheaper to handle than to share with another thread.
constexpr int64_t kFewElements = 1 << 16;

// Calls body(first, last) for blocks of kRowsPerTask rows; `elements` says how much work there is.
template <typename Body>
void for_row_blocks(ThreadPool& pool, int64_t rows, int64_t elements, const Body& body) {
  pool.run((rows + kRowsPerTask - 1) / kRowsPerTask,
           [&](int64_t task) {
             const int64_t first = task * kRowsPerTask;
             body(first, first + kRowsPerTask < rows ? first + kRowsPerTask : rows);
           },
           elements > kFewElements);
}

// Rows [first, last) of a matrix: what one thread takes through several operations.
struct RowRange {
  int64_t first, last;
  int64_t count() const { return last - first; }
};

// x (rows, d) = embedding (vocab, d)[tokens].
void embed(const float* embedding, const int32_t* tokens, int64_t d, float* x, RowRange range);
// y = x * r * gain in the form that y has; r (rows) = 1 / sqrt(mean(x^2) + eps).
void rmsnorm(const float* x, const float* gain, float eps, int64_t d, Operand y, float* r,
             RowRange range);
// Rotates the first `heads` heads of each row of x (row stride `width`) by its position.
void rope(float* x, const int32_t* positions, const float* cosine, const float* sine, int64_t width,
          int64_t heads, int64_t dim, RowRange range);
// gate_up (rows, 2 f) -> h (rows, f) = silu(gate) * up.
void swiglu(const float* gate_up, int64_t f, Operand h, RowRange range);

// dembedding[tokens[row]] += dx[row], in row order.
void embed_backward(ThreadPool& pool, const float* dx, const int32_t* tokens, int64_t rows,
                    int64_t d, float* dembedding);

// Row i of a bf16 operand of k columns, with the zeros behind them written.
Bf16* bf16_row_of(Operand x, int64_t i, int64_t k);
// Zeros behind the k columns of a bf16 operand whose rows are written in parts.
void clear_padding(Operand x, int64_t rows, int64_t k);

// One row of rmsnorm.
float rmsnorm_row(const KernelTable& kernel, const float* x, const float* gain, float eps,
                  int64_t d, Operand y, int64_t row);
// dx = dres + J^T dy (dx may alias dres); dgain += its gradient, summed per block, blocks in order,
// unless null. partials: rmsnorm_partials_size() floats. rounded: dx as a bf16 operand, or null.
void rmsnorm_backward(ThreadPool& pool, const float* x, const float* gain, const float* r,
                      const float* dy, const float* dres, int64_t rows, int64_t d, float* dx,
                      float* dgain, float* partials, Bf16* rounded);
inline int64_t rmsnorm_partials_size(int64_t rows, int64_t d) {
  return (rows + kRowsPerTask - 1) / kRowsPerTask * d;
}

// h of swiglu again, which may replace dh (rows, f), and the gradient dgate_up (rows, 2 f).
void swiglu_backward(ThreadPool& pool, const float* gate_up, const float* dh, int64_t rows,
                     int64_t f, Operand h, Operand dgate_up);

}  // namespace covenant
