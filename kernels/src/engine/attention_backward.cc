// Backward through attention: P is computed again from the kept logarithms of the row sums, then
//   dS = P o (dO V^T - rowsum(dO o O)) / sqrt(dim),  dQ = dS K,  dK = dS^T Q,  dV = P^T dO,
// and dQ and dK are rotated back.
#include <algorithm>

#include "engine/attention_blocks.h"

namespace covenant {
namespace {

constexpr int64_t kBackwardBlock = 144;  // rows whose probabilities are kept at once
constexpr int64_t kKeyBlock = 24;        // rows of dK and dV per product

// Scratch of one task, cut from one block; with no block it only counts.
struct Scratch {
  float *keys_t, *values_t, *keys, *probabilities, *dscores, *queries, *douts;
  int64_t ld, floats;

  Scratch(const AttentionShape& shape, int64_t length, float* base) {
    ld = round32(length);
    Cut cut(base);
    keys_t = cut.take(ld * shape.dim);
    values_t = cut.take(ld * shape.dim);
    keys = cut.take(length * shape.padded_dim());
    probabilities = cut.take(kBackwardBlock * ld);
    dscores = cut.take(kBackwardBlock * ld);
    queries = cut.take(kBackwardBlock * shape.padded_dim());
    douts = cut.take(kBackwardBlock * shape.padded_dim());
    floats = cut.floats();
  }
};

// Probabilities and score gradients of rows [first, first + rows), and their dQ.
void backward_queries(const KernelTable& kernel, const AttentionShape& shape,
                      const QueryHeadView& head, const Scratch& s, int64_t length, int64_t first,
                      int64_t rows) {
  const int64_t dim = shape.dim, width = shape.width(), out_width = shape.query_width();
  const float scale = score_scale(dim);
  for (int64_t r = 0; r < rows; r += kQueryBlock) {
    const int64_t block = std::min(kQueryBlock, rows - r);
    const int64_t row = first + r, visible = row + block;
    float* p = s.probabilities + r * s.ld;
    float* ds = s.dscores + r * s.ld;
    kernel.gemm(block, visible, dim, head.q + row * width, width, 1, s.keys_t, dim * kPanel,
                nullptr, 0, p, s.ld);
    kernel.gemm(block, visible, dim, head.dout + row * out_width, out_width, 1, s.values_t,
                dim * kPanel, nullptr, 0, ds, s.ld);
    for (int64_t i = 0; i < block; ++i) {
      const int64_t at = (row + i) * out_width;
      const float delta = kernel.dot(head.dout + at, head.out + at, dim);
      kernel.softmax_backward(p + i * s.ld, ds + i * s.ld, scale, head.lse[(row + i) * shape.heads],
                              delta, row + i + 1, first + rows, p + i * s.ld, ds + i * s.ld);
    }
    kernel.gemm(block, dim, visible, ds, s.ld, 1, s.keys, length * kPanel, nullptr, 0,
                head.dq.f32 + row * width, width);
  }
}

// dK += dS^T Q and dV += P^T dO for the rows prepared by backward_queries.
void backward_keys(const KernelTable& kernel, const AttentionShape& shape, const KeyHeadView& keys,
                   const QueryHeadView& head, const Scratch& s, int64_t first, int64_t rows) {
  const int64_t dim = shape.dim, width = shape.width(), out_width = shape.query_width();
  pack_values(kernel, head.q + first * width, rows, dim, width, s.queries, rows * kPanel);
  pack_values(kernel, head.dout + first * out_width, rows, dim, out_width, s.douts, rows * kPanel);
  for (int64_t key = 0; key < first + rows; key += kKeyBlock) {
    const int64_t block = std::min(kKeyBlock, first + rows - key);
    const int64_t skip =
        std::max<int64_t>(0, key - first);  // earlier queries do not see these keys
    const int64_t at = skip * s.ld + key;
    float* dk = keys.dkeys.f32 + key * width;
    float* dv = keys.dvalues.f32 + key * width;
    kernel.gemm(block, dim, rows - skip, s.dscores + at, 1, s.ld, s.queries + skip * kPanel,
                rows * kPanel, dk, width, dk, width);
    kernel.gemm(block, dim, rows - skip, s.probabilities + at, 1, s.ld, s.douts + skip * kPanel,
                rows * kPanel, dv, width, dv, width);
  }
}

}  // namespace

int64_t attention_backward_f32_scratch_size(const AttentionShape& shape, int64_t length) {
  return Scratch(shape, length, nullptr).floats;
}

void attention_backward_f32(const AttentionShape& shape, const BackwardRows& rows,
                            const Segment& segment, int64_t kv, float* scratch) {
  const KernelTable& kernel = kernels();
  const KeyHeadView keys(shape, rows, segment, kv);
  const int64_t length = keys.length, dim = shape.dim, width = shape.width();
  const Scratch s(shape, length, scratch);
  kernel.pack_transposed(keys.keys, length, dim, width, s.keys_t);
  kernel.pack_transposed(keys.values, length, dim, width, s.values_t);
  pack_values(kernel, keys.keys, length, dim, width, s.keys, length * kPanel);
  for (int64_t i = 0; i < length; ++i) {
    std::memset(keys.dkeys.f32 + i * width, 0, static_cast<size_t>(dim) * sizeof(float));
    std::memset(keys.dvalues.f32 + i * width, 0, static_cast<size_t>(dim) * sizeof(float));
  }
  for (int64_t h = kv * shape.group(); h < (kv + 1) * shape.group(); ++h) {
    const QueryHeadView head(shape, rows, segment, h);
    for (int64_t first = 0; first < length; first += kBackwardBlock) {
      const int64_t count = std::min(kBackwardBlock, length - first);
      backward_queries(kernel, shape, head, s, length, first, count);
      backward_keys(kernel, shape, keys, head, s, first, count);
    }
  }
  const QueryHeadView group(shape, rows, segment, kv * shape.group());
  for (int64_t i = 0; i < length; ++i) {
    const float *cosine = rows.cosine + i * (dim / 2), *sine = rows.sine + i * (dim / 2);
    kernel.rope_backward(group.dq.f32 + i * width, cosine, sine, shape.group(), dim);
    kernel.rope_backward(keys.dkeys.f32 + i * width, cosine, sine, 1, dim);
  }
}

int64_t attention_backward_scratch_size(const AttentionShape& shape, Compute format,
                                        int64_t length) {
  return format == Compute::kF32 ? attention_backward_f32_scratch_size(shape, length)
                                 : attention_backward_bf16_scratch_size(shape, length);
}

void attention_backward(const AttentionShape& shape, Compute format, const BackwardRows& rows,
                        const Segment& segment, int64_t kv, float* scratch) {
  const auto backward = format == Compute::kF32 ? attention_backward_f32 : attention_backward_bf16;
  backward(shape, rows, segment, kv, scratch);
}

}  // namespace covenant
