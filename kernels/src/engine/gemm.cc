// Linear layers: partition of the products into tasks. The micro-kernels are in isa/gemm.h.
#include "engine/gemm.h"

#include <algorithm>

namespace covenant {
namespace {

// Rows and columns of one task at most: rows in whole tiles, columns so many that putting the rows
// into tiles hardly counts.
constexpr int64_t kRowBlock = 48, kColumnBlock = 1024;
constexpr int64_t kLeastRows = 12;       // of a block: one tile
constexpr int64_t kGradientRows = 64;    // of dW per task: whole cache lines of a row of dY
constexpr int64_t kSmallPack = 1 << 17;  // numbers that one thread packs faster than two

// Blocks of about kRowBlock rows that make as many for each thread.
int64_t even_blocks(int64_t rows, int64_t threads) {
  return (rows + kRowBlock * threads - 1) / (kRowBlock * threads) * threads;
}

int64_t panels(int64_t n) { return (n + kPanel - 1) / kPanel; }

// Offset of panel p of a packed matrix.
void* panel_of(const PackedMatrix& w, int64_t p) {
  if (w.format == Compute::kF32) return static_cast<float*>(w.data) + p * kPanel * w.k;
  return static_cast<Bf16*>(w.data) + p * kPanel * bf16_padded(w.k);
}

// One block of an output: rows and columns from (row, column).
void multiply_block(Operand x, const PackedMatrix& w, const float* residual, float* out,
                    int64_t row, int64_t rows, int64_t column, int64_t columns) {
  const KernelTable& kernel = kernels();
  const int64_t at = row * w.n + column, k = w.k;
  const float* const init = residual == nullptr ? nullptr : residual + at;
  const void* const panel = panel_of(w, column / kPanel);
  if (w.format == Compute::kF32)
    kernel.gemm(rows, columns, k, x.f32 + row * k, k, 1, static_cast<const float*>(panel),
                kPanel * k, init, w.n, out + at, w.n);
  else
    kernel.gemm_bf16(rows, columns, bf16_padded(k), x.bf16 + row * bf16_row(k), bf16_row(k),
                     static_cast<const Bf16*>(panel), kPanel * bf16_padded(k), init, w.n, out + at,
                     w.n);
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

void round_row(const float* x, int64_t i, int64_t k, Bf16* rounded) {
  if (rounded != nullptr)
    kernels().round_bf16(x + i * k, k, bf16_padded(k), rounded + i * bf16_row(k));
}

Operand operand(ThreadPool& pool, Compute format, float* x, int64_t m, int64_t k, Bf16* rounded) {
  if (format == Compute::kF32) return {x, nullptr};
  constexpr int64_t kRows = 32;
  pool.run(
      (m + kRows - 1) / kRows,
      [&](int64_t task) {
        for (int64_t i = task * kRows; i < std::min(m, (task + 1) * kRows); ++i)
          round_row(x, i, k, rounded);
      },
      m * k > kSmallPack);
  return {nullptr, rounded};
}

// ---- products ----------------------------------------------------------------------------------

RowBlocks::RowBlocks(const ThreadPool& pool, int64_t row_count)
    : rows(row_count),
      count(std::min((row_count + kLeastRows - 1) / kLeastRows,
                     even_blocks(row_count, pool.threads()))) {}

MultiplyTasks::MultiplyTasks(const ThreadPool& pool, Operand x, int64_t m, const PackedMatrix& w,
                             const float* residual, float* out)
    : x_(x), m_(m), w_(w), residual_(residual), out_(out), block_(w.n) {
  const int64_t threads = pool.threads();
  if (threads == 1 || m * w.n * w.k <= kOneThreadProduct) return;
  row_blocks_ = m <= kRowBlock ? 1 : std::min(m, even_blocks(m, threads));
  // Few rows are shared out by columns, so that w is read once; up to three use four panels at once.
  const int64_t least = (4 * threads + row_blocks_ - 1) / row_blocks_;
  const int64_t wanted = std::max((w.n + kColumnBlock - 1) / kColumnBlock, least);
  const int64_t unit = m <= 3 ? 4 : 1;
  block_ = (panels(w.n) + unit * wanted - 1) / (unit * wanted) * (unit * kPanel);
  column_blocks_ = (w.n + block_ - 1) / block_;
}

void MultiplyTasks::operator()(int64_t task) const {
  const int64_t i = task / column_blocks_, column = task % column_blocks_ * block_;
  const int64_t row = m_ * i / row_blocks_;
  multiply_block(x_, w_, residual_, out_, row, m_ * (i + 1) / row_blocks_ - row, column,
                 std::min(block_, w_.n - column));
}

void multiply_rows(Operand x, int64_t row, int64_t rows, const PackedMatrix& w,
                   const float* residual, float* out) {
  multiply_block(x, w, residual, out, row, rows, 0, w.n);
}

void multiply(ThreadPool& pool, Operand x, int64_t m, const PackedMatrix& w, const float* residual,
              float* out) {
  const MultiplyTasks tasks(pool, x, m, w, residual, out);
  pool.run(tasks.count(), tasks);
}

int64_t PackTokensTasks::count() const {
  return panels(to_.format == Compute::kF32 ? to_.k : to_.n);
}

void PackTokensTasks::operator()(int64_t task) const {
  const KernelTable& kernel = kernels();
  const int64_t first = task * kPanel, m = to_.k, k = to_.n;
  if (to_.format == Compute::kF32)
    pack_rows(kernel, x_.f32 + first * k, std::min(kPanel, m - first), task, k, nullptr, &to_);
  else
    kernel.zip_panel_bf16(x_.bf16 + first, std::min(kPanel, k - first), m, bf16_row(k),
                          static_cast<Bf16*>(panel_of(to_, task)));
}

GradientTasks::GradientTasks(const ThreadPool& pool, Compute format, Operand dy, Operand x,
                             int64_t m, int64_t n, int64_t k, float* dw, float* scratch)
    : dy_(dy),
      n_(n),
      dw_(dw),
      x_{format, m, k, scratch},
      packing_(x, x_) {
  const int64_t threads = pool.threads();
  rows_ = threads == 1 && format == Compute::kF32 ? n : kGradientRows;
  row_blocks_ = (n + rows_ - 1) / rows_;
  // Few rows are shared out by columns as well; each task then transposes its part of dY for itself.
  const int64_t wanted = threads == 1 ? 1 : (2 * threads + row_blocks_ - 1) / row_blocks_;
  block_ = (panels(k) + wanted - 1) / wanted * kPanel;
  column_blocks_ = (k + block_ - 1) / block_;
}

void GradientTasks::operator()(int64_t task) const {
  const KernelTable& kernel = kernels();
  const int64_t m = x_.k, k = x_.n;
  const int64_t row = task / column_blocks_ * rows_, rows = std::min(rows_, n_ - row);
  const int64_t column = task % column_blocks_ * block_, columns = std::min(block_, k - column);
  float* const dw = dw_ + row * k + column;
  const void* const panel = panel_of(x_, column / kPanel);
  if (x_.format == Compute::kF32) {
    kernel.gemm(rows, columns, m, dy_.f32 + row, 1, n_, static_cast<const float*>(panel),
                kPanel * m, dw, k, dw, k);
    return;
  }
  kernel.gemm_bf16_transposed(rows, columns, m, dy_.bf16 + row, bf16_row(n_),
                              static_cast<const Bf16*>(panel), kPanel * bf16_padded(m), dw, k, dw,
                              k);
}

void multiply_gradient(ThreadPool& pool, Compute format, Operand dy, Operand x, int64_t m,
                       int64_t n, int64_t k, float* dw, float* scratch) {
  const GradientTasks tasks(pool, format, dy, x, m, n, k, dw, scratch);
  pool.run(tasks.packing().count(), tasks.packing(), m * k > kSmallPack);
  pool.run(tasks.count(), tasks, m * n * k > kOneThreadProduct);
}

int64_t gradient_scratch_size(Compute format, int64_t m, int64_t k) {
  return packed_bytes(format, m, k) / 4;
}

}  // namespace covenant
