// Linear layers: Y = X W^T, dX = dY W, dW += dY^T X, over packed right-hand sides. Tier: same bits
// for every thread count and batch (each output is one chain in index order).
#pragma once

#include <cstdint>

#include "core/thread_pool.h"

namespace covenant {

// Tokens whose rows are packed at once for a weight gradient.
constexpr int64_t kGradientBlock = 256;

// Floats of a packed (k, n) matrix.
inline int64_t packed_size(int64_t k, int64_t n) { return (n + 31) / 32 * 32 * k; }

// Packs W (n, k) so that multiply() computes X W^T: the matrix W^T (k, n).
void pack_forward(ThreadPool& pool, const float* w, int64_t n, int64_t k, float* packed);

// Packs W (n, k) so that multiply() computes dY W: the matrix (n, k) with n as the inner dimension.
void pack_backward(ThreadPool& pool, const float* w, int64_t n, int64_t k, float* packed);

// out (m, n) = residual + x (m, k) * packed (k, n). residual may be null or alias out; both have
// row stride n.
void multiply(ThreadPool& pool, const float* x, int64_t m, int64_t k, const float* packed,
              int64_t n, const float* residual, float* out);

// dw (n, k) += dy (m, n)^T x (m, k). scratch: gradient_scratch_size() floats per thread of the
// pool.
void multiply_gradient(ThreadPool& pool, const float* dy, const float* x, int64_t m, int64_t n,
                       int64_t k, float* dw, float* scratch);
inline int64_t gradient_scratch_size() { return kGradientBlock * 32; }

}  // namespace covenant
