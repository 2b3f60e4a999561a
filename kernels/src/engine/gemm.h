// Linear layers: Y = X W^T, dX = dY W, dW += dY^T X, over packed right-hand sides, computed in fp32
// or with operands rounded to bf16 and fp32 sums. Tier: same bits for every thread count and batch
// (each output is one chain in an order that its index k alone decides); in fp32 also on every CPU
// path, in bf16 on every path but amx (see isa/bf16.h).
#pragma once

#include <cstdint>

#include "core/thread_pool.h"
#include "engine/isa/table.h"

namespace covenant {

// How products are computed; the values of cov_compute.
enum class Compute : int32_t { kF32 = 0, kBf16 = 1 };

// ---- operands ----------------------------------------------------------------------------------

// A right-hand side (k, n), packed in panels of 32 columns.
struct PackedMatrix {
  Compute format = Compute::kF32;
  int64_t k = 0, n = 0;
  void* data = nullptr;  // packed_bytes(format, k, n), float or Bf16
};

inline int64_t packed_bytes(Compute format, int64_t k, int64_t n) {
  const int64_t columns = (n + kPanel - 1) / kPanel * kPanel;
  return columns * (format == Compute::kF32 ? 4 * k : 2 * bf16_padded(k));
}

// Packs W (n, k), row by row, so that multiply() computes X W^T with `forward` (its k = k, its
// n = n) and dY W with `backward` (its k = n, its n = k). Either may be null; their `data` has the
// space.
void pack(ThreadPool& pool, const float* w, int64_t n, int64_t k, const PackedMatrix* forward,
          const PackedMatrix* backward);
inline void pack_forward(ThreadPool& pool, const float* w, const PackedMatrix& to) {
  pack(pool, w, to.n, to.k, &to, nullptr);
}
inline void pack_backward(ThreadPool& pool, const float* w, const PackedMatrix& to) {
  pack(pool, w, to.k, to.n, nullptr, &to);
}

// Rows as left-hand sides, in the form that the product's format asks for: fp32 with row stride k,
// or bf16 with row stride bf16_row(k) and zeros from k to bf16_padded(k). The other one is null.
struct Operand {
  float* f32 = nullptr;
  Bf16* bf16 = nullptr;
};

// An odd number of cache lines: rows below each other then share no set of a cache before all are
// in use.
inline int64_t bf16_row(int64_t k) {
  const int64_t padded = bf16_padded(k);
  return padded % 64 == 0 ? padded + 32 : padded;
}
inline int64_t bf16_size(int64_t rows, int64_t k) { return rows * bf16_row(k); }

// The rows of x (m, k) from `row` on.
inline Operand rows_from(Operand x, int64_t row, int64_t k) {
  return {x.f32 == nullptr ? nullptr : x.f32 + row * k,
          x.bf16 == nullptr ? nullptr : x.bf16 + row * bf16_row(k)};
}

// Row i of x (m, k) rounded into row i of a bf16 operand, unless that is null.
void round_row(const float* x, int64_t i, int64_t k, Bf16* rounded);

// x (m, k) as an operand: itself, or rounded into `rounded` (bf16_size(m, k) values).
Operand operand(ThreadPool& pool, Compute format, float* x, int64_t m, int64_t k, Bf16* rounded);

// ---- products ----------------------------------------------------------------------------------

// How rows that go through several operations one after the other are shared out: as many blocks of
// about equal size for each thread. Where they are cut never shows in the bits.
struct RowBlocks {
  int64_t rows, count;
  RowBlocks(const ThreadPool& pool, int64_t row_count);
  int64_t first(int64_t block) const { return rows * block / count; }  // of `count`: the end
};

// out (m, w.n) = residual + x (m, w.k) * w, cut into numbered tasks of about equal size, so that
// products that do not wait for each other can share one run of the pool. residual may be null or
// alias out; both have row stride w.n. Where the tasks are cut never shows in the bits.
class MultiplyTasks {
 public:
  MultiplyTasks(const ThreadPool& pool, Operand x, int64_t m, const PackedMatrix& w,
                const float* residual, float* out);
  int64_t count() const { return row_blocks_ * column_blocks_; }
  void operator()(int64_t task) const;

 private:
  Operand x_;
  int64_t m_;
  PackedMatrix w_;
  const float* residual_;
  float* out_;
  int64_t row_blocks_ = 1, block_ = 0, column_blocks_ = 1;
};

// All of it, shared out over the pool.
void multiply(ThreadPool& pool, Operand x, int64_t m, const PackedMatrix& w, const float* residual,
              float* out);
// Rows [row, row + rows) of it, on the thread that asks.
void multiply_rows(Operand x, int64_t row, int64_t rows, const PackedMatrix& w,
                   const float* residual, float* out);

// Packs x (m, k) as a right-hand side whose k are the tokens.
class PackTokensTasks {
 public:
  PackTokensTasks(Operand x, const PackedMatrix& to) : x_(x), to_(to) {}
  int64_t count() const;
  void operator()(int64_t task) const;

 private:
  Operand x_;
  PackedMatrix to_;
};

// dw (n, k) += dy (m, n)^T x (m, k); both operands in `format`. The tasks of packing() come first;
// when all of them are done, those of the product. scratch: gradient_scratch_size() floats, for x
// packed.
class GradientTasks {
 public:
  GradientTasks(const ThreadPool& pool, Compute format, Operand dy, Operand x, int64_t m, int64_t n,
                int64_t k, float* dw, float* scratch);
  const PackTokensTasks& packing() const { return packing_; }
  int64_t count() const { return row_blocks_ * column_blocks_; }
  void operator()(int64_t task) const;

 private:
  Operand dy_;
  int64_t n_;
  float* dw_;
  PackedMatrix x_;
  PackTokensTasks packing_;
  int64_t rows_, row_blocks_, block_, column_blocks_;
};
int64_t gradient_scratch_size(Compute format, int64_t m, int64_t k);

// All of it, packing first.
void multiply_gradient(ThreadPool& pool, Compute format, Operand dy, Operand x, int64_t m,
                       int64_t n, int64_t k, float* dw, float* scratch);

// Below this many multiply-adds one thread is faster than waking another.
constexpr int64_t kOneThreadProduct = 1 << 21;

}  // namespace covenant
