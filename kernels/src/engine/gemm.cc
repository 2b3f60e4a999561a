// Linear layers: partition of the products into tasks. The micro-kernels are in isa/gemm.h.
#include "engine/gemm.h"

#include <algorithm>

namespace covenant {
namespace {

// Rows and columns of one task at most: rows in whole tiles, columns so many that putting the rows
// into tiles hardly counts.
constexpr int64_t kRowBlock = 48, kColumnBlock = 1024;
constexpr int64_t kTransposeBlock = 64;  // columns of dY per task
// Below these sizes one thread is faster than waking another.
constexpr int64_t kSmallProduct = 1 << 21;  // multiply-adds
constexpr int64_t kSmallPack = 1 << 17;     // numbers

int64_t panels(int64_t n) { return (n + kPanel - 1) / kPanel; }

// Offset of panel p of a packed matrix.
void* panel_of(const PackedMatrix& w, int64_t p) {
  if (w.format == Compute::kF32) return static_cast<float*>(w.data) + p * kPanel * w.k;
  return static_cast<Bf16*>(w.data) + p * kPanel * bf16_padded(w.k);
}

// Left-hand rows of a product: in fp32 element (i, j) lies at f32[i * row + j * column].
struct Left {
  const float* f32;
  int64_t row, column;
  const Bf16* bf16;  // row stride bf16_row(k)
};

// One block of an output: rows and columns from (row, column).
void multiply_block(const KernelTable& kernel, const Left& x, const PackedMatrix& w,
                    const float* residual, float* out, int64_t row, int64_t rows, int64_t column,
                    int64_t columns) {
  const int64_t at = row * w.n + column, k = w.k;
  const float* init = residual == nullptr ? nullptr : residual + at;
  const void* panel = panel_of(w, column / kPanel);
  if (w.format == Compute::kF32)
    kernel.gemm(rows, columns, k, x.f32 + row * x.row, x.row, x.column,
                static_cast<const float*>(panel), kPanel * k, init, w.n, out + at, w.n);
  else
    kernel.gemm_bf16(rows, columns, bf16_padded(k), x.bf16 + row * bf16_row(k), bf16_row(k),
                     static_cast<const Bf16*>(panel), kPanel * bf16_padded(k), init, w.n, out + at,
                     w.n);
}

// out (m, w.n) = residual + x * w in tasks of about equal size.
void multiply_blocks(ThreadPool& pool, const Left& x, int64_t m, const PackedMatrix& w,
                     const float* residual, float* out) {
  const KernelTable& kernel = kernels();
  if (pool.threads() == 1 || m * w.n * w.k <= kSmallProduct) {
    multiply_block(kernel, x, w, residual, out, 0, m, 0, w.n);
    return;
  }
  // As many tasks of equal size for each thread; where they are cut never shows in the bits.
  const int64_t threads = pool.threads();
  const int64_t rounds = (m + kRowBlock * threads - 1) / (kRowBlock * threads);
  const int64_t row_blocks = m <= kRowBlock ? 1 : std::min(m, rounds * threads);
  // Few rows are shared out by columns, so that w is read once; up to three use four panels at once.
  const int64_t least = (4 * threads + row_blocks - 1) / row_blocks;
  const int64_t wanted = std::max((w.n + kColumnBlock - 1) / kColumnBlock, least);
  const int64_t unit = m <= 3 ? 4 : 1;
  const int64_t block = (panels(w.n) + unit * wanted - 1) / (unit * wanted) * (unit * kPanel);
  const int64_t column_blocks = (w.n + block - 1) / block;
  pool.run(row_blocks * column_blocks, [&](int64_t task) {
    const int64_t i = task / column_blocks, column = task % column_blocks * block;
    const int64_t row = m * i / row_blocks;
    multiply_block(kernel, x, w, residual, out, row, m * (i + 1) / row_blocks - row, column,
                   std::min(block, w.n - column));
  });
}

}  // namespace

void pack_forward(ThreadPool& pool, const float* w, PackedMatrix& to) {
  const KernelTable& kernel = kernels();
  pool.run(
      panels(to.n),
      [&](int64_t p) {
        const float* rows = w + p * kPanel * to.k;
        const int64_t count = std::min(kPanel, to.n - p * kPanel);
        if (to.format == Compute::kF32)
          kernel.pack_transposed(rows, count, to.k, to.k, static_cast<float*>(panel_of(to, p)));
        else
          kernel.pack_transposed_bf16(rows, count, to.k, to.k,
                                      static_cast<Bf16*>(panel_of(to, p)));
      },
      to.n * to.k > kSmallPack);
}

void pack_backward(ThreadPool& pool, const float* w, PackedMatrix& to) {
  const KernelTable& kernel = kernels();
  pool.run(
      panels(to.n),
      [&](int64_t p) {
        const float* columns = w + p * kPanel;
        const int64_t count = std::min(kPanel, to.n - p * kPanel);
        if (to.format == Compute::kF32)
          kernel.pack_panel(columns, count, to.k, to.n, static_cast<float*>(panel_of(to, p)));
        else
          kernel.pack_panel_bf16(columns, count, to.k, to.n, static_cast<Bf16*>(panel_of(to, p)));
      },
      to.n * to.k > kSmallPack);
}

Operand operand(ThreadPool& pool, Compute format, float* x, int64_t m, int64_t k, Bf16* rounded) {
  if (format == Compute::kF32) return {x, nullptr};
  const KernelTable& kernel = kernels();
  constexpr int64_t kRows = 32;
  pool.run(
      (m + kRows - 1) / kRows,
      [&](int64_t task) {
        for (int64_t i = task * kRows; i < std::min(m, (task + 1) * kRows); ++i)
          kernel.round_bf16(x + i * k, k, bf16_padded(k), rounded + i * bf16_row(k));
      },
      m * k > kSmallPack);
  return {nullptr, rounded};
}

void multiply(ThreadPool& pool, Operand x, int64_t m, const PackedMatrix& w, const float* residual,
              float* out) {
  multiply_blocks(pool, {x.f32, w.k, 1, x.bf16}, m, w, residual, out);
}

// The product of dY^T and x packed as a right-hand side: the tokens are its k.
void multiply_gradient(ThreadPool& pool, Compute format, Operand dy, Operand x, int64_t m,
                       int64_t n, int64_t k, float* dw, float* scratch) {
  PackedMatrix packed{format, m, k, scratch};
  if (format == Compute::kF32) {
    pack_backward(pool, x.f32, packed);
    multiply_blocks(pool, {dy.f32, 1, n, nullptr}, n, packed, dw, dw);
    return;
  }
  const KernelTable& kernel = kernels();
  pool.run(
      panels(k),
      [&](int64_t p) {
        kernel.zip_panel_bf16(x.bf16 + p * kPanel, std::min(kPanel, k - p * kPanel), m, bf16_row(k),
                              static_cast<Bf16*>(panel_of(packed, p)));
      },
      m * k > kSmallPack);
  Bf16* const dy_columns =  // dY^T: (n, m)
      reinterpret_cast<Bf16*>(scratch) + packed_bytes(format, m, k) / 2;
  pool.run(
      (n + kTransposeBlock - 1) / kTransposeBlock,
      [&](int64_t task) {
        const int64_t first = task * kTransposeBlock;
        kernel.transpose_bf16(dy.bf16 + first, m, std::min(kTransposeBlock, n - first), bf16_row(n),
                              dy_columns + first * bf16_row(m), bf16_row(m));
      },
      m * n > kSmallPack);
  multiply_blocks(pool, {nullptr, 0, 0, dy_columns}, n, packed, dw, dw);
}

int64_t gradient_scratch_size(Compute format, int64_t m, int64_t n, int64_t k) {
  return packed_bytes(format, m, k) / 4 +
         (format == Compute::kBf16 ? (bf16_size(n, m) + 1) / 2 : 0);
}

}  // namespace covenant
