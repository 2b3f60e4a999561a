// Linear layers: partition of the products into tasks. The micro-kernels are in isa/gemm.h.
#include "engine/gemm.h"

#include <algorithm>

namespace covenant {
namespace {

constexpr int64_t kRowBlock = 96;      // rows of X per task: 8 tiles of 12
constexpr int64_t kColumnBlock = 512;  // columns per task
// Tokens whose rows are packed at once for a weight gradient: a panel of 64 KiB. Fewer would read
// and write the gradient more often.
constexpr int64_t gradient_block(Compute format) { return format == Compute::kF32 ? 512 : 1024; }
constexpr int64_t kTransposeBlock = 64;  // columns of dY per task
// Below these sizes one thread is faster than waking another.
constexpr int64_t kSmallProduct = 1 << 21;  // multiply-adds
constexpr int64_t kSmallPack = 1 << 17;     // numbers

// Floats of one thread's panel of tokens.
constexpr int64_t kPanelScratch = 512 * kPanel;

int64_t panels(int64_t n) { return (n + kPanel - 1) / kPanel; }

// Offset of panel p of a packed matrix.
void* panel_of(const PackedMatrix& w, int64_t p) {
  if (w.format == Compute::kF32) return static_cast<float*>(w.data) + p * kPanel * w.k;
  return static_cast<Bf16*>(w.data) + p * kPanel * bf16_padded(w.k);
}

// One block of an output: rows and columns from (row, column).
void multiply_block(const KernelTable& kernel, Operand x, int64_t k, const PackedMatrix& w,
                    const float* residual, float* out, int64_t row, int64_t rows, int64_t column,
                    int64_t columns) {
  const int64_t at = row * w.n + column;
  const float* init = residual == nullptr ? nullptr : residual + at;
  const void* panel = panel_of(w, column / kPanel);
  if (w.format == Compute::kF32)
    kernel.gemm(rows, columns, k, x.f32 + row * k, k, 1, static_cast<const float*>(panel),
                kPanel * k, init, w.n, out + at, w.n);
  else
    kernel.gemm_bf16(rows, columns, bf16_padded(k), x.bf16 + row * bf16_row(k), bf16_row(k),
                     static_cast<const Bf16*>(panel), kPanel * bf16_padded(k), init, w.n, out + at,
                     w.n);
}

// The panel of columns [first, first + columns) of dW.
void gradient_panel(const KernelTable& kernel, Compute format, Operand dy, const Bf16* dy_columns,
                    Operand x, int64_t m, int64_t n, int64_t k, int64_t first, float* dw,
                    float* panel) {
  const int64_t columns = std::min(kPanel, k - first);
  Bf16* const panel16 = reinterpret_cast<Bf16*>(panel);
  const int64_t block = gradient_block(format);
  for (int64_t token = 0; token < m; token += block) {
    const int64_t tokens = std::min(block, m - token);
    if (format == Compute::kF32) {
      kernel.pack_panel(x.f32 + token * k + first, columns, tokens, k, panel);
      kernel.gemm(n, columns, tokens, dy.f32 + token * n, 1, n, panel, 0, dw + first, k, dw + first,
                  k);
    } else {
      kernel.zip_panel_bf16(x.bf16 + token * bf16_row(k) + first, columns, tokens, bf16_row(k),
                            panel16);
      kernel.gemm_bf16(n, columns, bf16_padded(tokens), dy_columns + token, bf16_row(m), panel16, 0,
                       dw + first, k, dw + first, k);
    }
  }
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
  const KernelTable& kernel = kernels();
  const int64_t row_blocks = (m + kRowBlock - 1) / kRowBlock;
  const int64_t column_blocks = (w.n + kColumnBlock - 1) / kColumnBlock;
  pool.run(
      row_blocks * column_blocks,
      [&](int64_t task) {
        const int64_t row = task / column_blocks * kRowBlock;
        const int64_t column = task % column_blocks * kColumnBlock;
        multiply_block(kernel, x, w.k, w, residual, out, row, std::min(kRowBlock, m - row), column,
                       std::min(kColumnBlock, w.n - column));
      },
      m * w.n * w.k > kSmallProduct);
}

void multiply_gradient(ThreadPool& pool, Compute format, Operand dy, Operand x, int64_t m,
                       int64_t n, int64_t k, float* dw, float* scratch) {
  const KernelTable& kernel = kernels();
  float* const thread_panels = scratch;
  Bf16* dy_columns = nullptr;  // dY^T in bf16: (n, m)
  if (format == Compute::kBf16) {
    dy_columns = reinterpret_cast<Bf16*>(scratch + pool.threads() * kPanelScratch);
    pool.run(
        (n + kTransposeBlock - 1) / kTransposeBlock,
        [&](int64_t task) {
          const int64_t first = task * kTransposeBlock;
          kernel.transpose_bf16(dy.bf16 + first, m, std::min(kTransposeBlock, n - first),
                                bf16_row(n), dy_columns + first * bf16_row(m), bf16_row(m));
        },
        m * n > kSmallPack);
  }
  pool.run(
      panels(k),
      [&](int64_t p) {
        gradient_panel(kernel, format, dy, dy_columns, x, m, n, k, p * kPanel, dw,
                       thread_panels + ThreadPool::worker() * kPanelScratch);
      },
      m * n * k > kSmallProduct);
}

int64_t gradient_scratch_size(Compute format, int64_t m, int64_t n, int threads) {
  return threads * kPanelScratch + (format == Compute::kBf16 ? (bf16_size(n, m) + 1) / 2 : 0);
}

}  // namespace covenant
