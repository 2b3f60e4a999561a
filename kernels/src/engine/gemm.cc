// Linear layers: partition of the products into tasks. The micro-kernels are in isa/gemm.h.
#include "engine/gemm.h"

#include <algorithm>

namespace covenant {
namespace {

// Rows and columns of one task at most: rows in whole tiles, columns so many that putting the rows
// into tiles hardly counts.
constexpr int64_t kRowBlock = 48, kColumnBlock = 1024;
constexpr int64_t kGradientRows = 64;  // of dW per task: whole cache lines of a row of dY
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

// The 32 rows of W that task `p` reads: panel p of the forward form, a piece of every panel of the
// backward one. Either may be null.
void pack_rows(const KernelTable& kernel, const float* rows, int64_t count, int64_t p, int64_t k,
               const PackedMatrix* forward, const PackedMatrix* backward) {
  const int64_t at = p * kPanel * kPanel;  // inside a panel of the backward form
  if (forward != nullptr && forward->format == Compute::kF32)
    kernel.pack_transposed(rows, count, k, k, static_cast<float*>(panel_of(*forward, p)));
  else if (forward != nullptr)
    kernel.pack_transposed_bf16(rows, count, k, k, static_cast<Bf16*>(panel_of(*forward, p)));
  for (int64_t c = 0; backward != nullptr && c < panels(k); ++c) {
    const int64_t columns = std::min(kPanel, k - c * kPanel);
    void* const panel = panel_of(*backward, c);
    if (backward->format == Compute::kF32)
      kernel.pack_panel(rows + c * kPanel, columns, count, k, static_cast<float*>(panel) + at);
    else
      kernel.pack_panel_bf16(rows + c * kPanel, columns, count, k, static_cast<Bf16*>(panel) + at);
  }
}

}  // namespace

void pack(ThreadPool& pool, const float* w, int64_t n, int64_t k, const PackedMatrix* forward,
          const PackedMatrix* backward) {
  const KernelTable& kernel = kernels();
  pool.run(
      panels(n),
      [&](int64_t p) {
        const int64_t first = p * kPanel;
        pack_rows(kernel, w + first * k, std::min(kPanel, n - first), p, k, forward, backward);
      },
      n * k > kSmallPack);
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

// The product of dY^T and x packed as a right-hand side: the tokens are its k. In bf16 each task
// puts its own columns of dY into rows, in the caches of the core that needs them next.
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
  Bf16* const turned = reinterpret_cast<Bf16*>(scratch) + packed_bytes(format, m, k) / 2;
  const int64_t row_blocks = (n + kGradientRows - 1) / kGradientRows;
  // Few rows are shared out by columns as well; each task then puts them into rows for itself.
  const int64_t wanted = (2 * pool.threads() + row_blocks - 1) / row_blocks;
  const int64_t block =
      pool.threads() == 1 ? k : (panels(k) + wanted - 1) / wanted * kPanel;
  const int64_t column_blocks = (k + block - 1) / block;
  pool.run(
      row_blocks * column_blocks,
      [&](int64_t task) {
        const int64_t row = task / column_blocks * kGradientRows;
        const int64_t rows = std::min(kGradientRows, n - row), column = task % column_blocks * block;
        Bf16* const own = turned + ThreadPool::worker() * bf16_size(kGradientRows, m);
        kernel.transpose_bf16(dy.bf16 + row, m, rows, bf16_row(n), own, bf16_row(m));
        const int64_t at = row * k + column;
        kernel.gemm_bf16(rows, std::min(block, k - column), bf16_padded(m), own, bf16_row(m),
                         static_cast<Bf16*>(panel_of(packed, column / kPanel)),
                         kPanel * bf16_padded(m), dw + at, k, dw + at, k);
      },
      m * n * k > kSmallProduct);
}

int64_t gradient_scratch_size(Compute format, int64_t m, int64_t k, int threads) {
  return packed_bytes(format, m, k) / 4 +
         (format == Compute::kBf16 ? (threads * bf16_size(kGradientRows, m) + 1) / 2 : 0);
}

}  // namespace covenant
