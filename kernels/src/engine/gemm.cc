// Linear layers: partition of the products into tasks. The micro-kernels are in isa/gemm.h.
#include "engine/gemm.h"

#include <algorithm>

#include "engine/isa/table.h"

namespace covenant {
namespace {

constexpr int64_t kRowBlock = 96;      // rows of X per task: 8 tiles of 12
constexpr int64_t kColumnBlock = 256;  // columns per task when there are few rows
// Below these sizes one thread is faster than waking another.
constexpr int64_t kSmallProduct = 1 << 21;  // multiply-adds
constexpr int64_t kSmallPack = 1 << 17;     // floats

}  // namespace

void pack_forward(ThreadPool& pool, const float* w, int64_t n, int64_t k, float* packed) {
  const KernelTable& kernel = kernels();
  pool.run((n + kPanel - 1) / kPanel,
           [&](int64_t p) {
             const int64_t first = p * kPanel;
             kernel.pack_transposed(w + first * k, std::min(kPanel, n - first), k, k,
                                    packed + first * k);
           },
           n * k > kSmallPack);
}

void pack_backward(ThreadPool& pool, const float* w, int64_t n, int64_t k, float* packed) {
  const KernelTable& kernel = kernels();
  pool.run((k + kPanel - 1) / kPanel,
           [&](int64_t p) {
             const int64_t first = p * kPanel;
             kernel.pack_panel(w + first, std::min(kPanel, k - first), n, k, packed + first * n);
           },
           n * k > kSmallPack);
}

void multiply(ThreadPool& pool, const float* x, int64_t m, int64_t k, const float* packed,
              int64_t n, const float* residual, float* out) {
  const KernelTable& kernel = kernels();
  const int64_t row_blocks = (m + kRowBlock - 1) / kRowBlock;
  const int64_t column_block = row_blocks >= pool.threads() ? n : kColumnBlock;
  const int64_t column_blocks = (n + column_block - 1) / column_block;
  pool.run(
      row_blocks * column_blocks,
      [&](int64_t task) {
        const int64_t row = task / column_blocks * kRowBlock;
        const int64_t column = task % column_blocks * column_block;
        const int64_t offset = row * n + column;
        kernel.gemm(std::min(kRowBlock, m - row), std::min(column_block, n - column), k,
                    x + row * k, k, 1, packed + column * k, kPanel * k,
                    residual == nullptr ? nullptr : residual + offset, n, out + offset, n);
      },
      m * n * k > kSmallProduct);
}

void multiply_gradient(ThreadPool& pool, const float* dy, const float* x, int64_t m, int64_t n,
                       int64_t k, float* dw, float* scratch) {
  const KernelTable& kernel = kernels();
  pool.run((k + kPanel - 1) / kPanel,
           [&](int64_t p) {
             const int64_t first = p * kPanel;
             const int64_t columns = std::min(kPanel, k - first);
             float* panel = scratch + ThreadPool::worker() * gradient_scratch_size();
             for (int64_t token = 0; token < m; token += kGradientBlock) {
               const int64_t tokens = std::min(kGradientBlock, m - token);
               kernel.pack_panel(x + token * k + first, columns, tokens, k, panel);
               kernel.gemm(n, columns, tokens, dy + token * n, 1, n, panel, 0, dw + first, k,
                           dw + first, k);
             }
           },
           m * n * k > kSmallProduct);
}

}  // namespace covenant
