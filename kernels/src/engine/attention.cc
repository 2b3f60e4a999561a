// Attention as blocks of matrix products: scores, softmax per row, weighted values.
#include "engine/attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "engine/isa/table.h"

namespace covenant {
namespace {

constexpr int64_t kQueryBlock = 24;      // rows whose scores are computed together
constexpr int64_t kBackwardBlock = 144;  // rows whose probabilities are kept at once
constexpr int64_t kKeyBlock = 24;        // rows of dK and dV per product
constexpr int64_t kSmallWork = 1 << 20;  // multiply-adds not worth waking a thread for

int64_t round32(int64_t n) { return (n + 31) / 32 * 32; }

float score_scale(int64_t dim) { return 1.0f / std::sqrt(static_cast<float>(dim)); }

// Panels of V (positions, dim) for products with probabilities.
void pack_values(const KernelTable& kernel, const float* v, int64_t count, int64_t dim,
                 int64_t stride, float* out, int64_t panel_stride) {
  for (int64_t c = 0; c < dim; c += kPanel)
    kernel.pack_panel(v + c, std::min(kPanel, dim - c), count, stride,
                      out + c / kPanel * panel_stride);
}

struct Keys {
  const float* keys;    // packed panels of K^T: [position / 32][dim][32]
  const float* values;  // packed panels of V: [dim / 32][positions][32]
  int64_t value_panel;  // floats from one panel of values to the next
};

// `count` rows of one head, at positions start ..; scores: kQueryBlock * round32(start + count).
void attend(const KernelTable& kernel, const AttentionShape& shape, const float* q, int64_t count,
            int64_t start, const Keys& keys, float* out, float* lse, float* scores) {
  const int64_t ld = round32(start + count);
  const float scale = score_scale(shape.dim);
  for (int64_t r = 0; r < count; r += kQueryBlock) {
    const int64_t rows = std::min(kQueryBlock, count - r);
    const int64_t visible = start + r + rows;
    kernel.gemm(rows, visible, shape.dim, q + r * shape.width(), shape.width(), 1, keys.keys,
                shape.dim * kPanel, nullptr, 0, scores, ld);
    for (int64_t i = 0; i < rows; ++i) {
      const float row_lse = kernel.softmax(scores + i * ld, scale, start + r + i + 1, visible);
      if (lse != nullptr) lse[(r + i) * shape.heads] = row_lse;
    }
    kernel.gemm(rows, shape.dim, visible, scores, ld, 1, keys.values, keys.value_panel, nullptr, 0,
                out + r * shape.query_width(), shape.query_width());
  }
}

// Scratch of the backward pass of one kv head, cut from one block.
struct BackwardScratch {
  float *keys_t, *values_t, *keys, *probabilities, *dscores, *queries, *douts;
  int64_t ld;

  BackwardScratch(const AttentionShape& shape, int64_t length, float* base) {
    ld = round32(length);
    const auto take = [&base](int64_t floats) {
      float* p = base;
      base += round32(floats);
      return p;
    };
    keys_t = take(ld * shape.dim);
    values_t = take(ld * shape.dim);
    keys = take(length * shape.padded_dim());
    probabilities = take(kBackwardBlock * ld);
    dscores = take(kBackwardBlock * ld);
    queries = take(kBackwardBlock * shape.padded_dim());
    douts = take(kBackwardBlock * shape.padded_dim());
  }
};

// Pointers to one head of one sequence inside the fused matrices.
struct HeadView {
  const float *q, *out, *dout, *lse;
  float *dq, *dk, *dv;
};

// Probabilities and score gradients of rows [first, first + rows), and their dQ.
void backward_queries(const KernelTable& kernel, const AttentionShape& shape, const HeadView& head,
                      const BackwardScratch& s, int64_t length, int64_t first, int64_t rows) {
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
                              delta, row + i + 1, first + rows);
    }
    kernel.gemm(block, dim, visible, ds, s.ld, 1, s.keys, length * kPanel, nullptr, 0,
                head.dq + row * width, width);
  }
}

// dK += dS^T Q and dV += P^T dO for the rows prepared by backward_queries.
void backward_keys(const KernelTable& kernel, const AttentionShape& shape, const HeadView& head,
                   const BackwardScratch& s, int64_t first, int64_t rows) {
  const int64_t dim = shape.dim, width = shape.width(), out_width = shape.query_width();
  pack_values(kernel, head.q + first * width, rows, dim, width, s.queries, rows * kPanel);
  pack_values(kernel, head.dout + first * out_width, rows, dim, out_width, s.douts, rows * kPanel);
  for (int64_t key = 0; key < first + rows; key += kKeyBlock) {
    const int64_t block = std::min(kKeyBlock, first + rows - key);
    const int64_t skip =
        std::max<int64_t>(0, key - first);  // earlier queries do not see these keys
    const int64_t at = skip * s.ld + key;
    float* dk = head.dk + key * width;
    float* dv = head.dv + key * width;
    kernel.gemm(block, dim, rows - skip, s.dscores + at, 1, s.ld, s.queries + skip * kPanel,
                rows * kPanel, dk, width, dk, width);
    kernel.gemm(block, dim, rows - skip, s.probabilities + at, 1, s.ld, s.douts + skip * kPanel,
                rows * kPanel, dv, width, dv, width);
  }
}

}  // namespace

int64_t attention_scratch_size(const AttentionShape& shape, int64_t length) {
  return round32(length) * (shape.dim + shape.padded_dim() + kQueryBlock);
}

int64_t attention_backward_scratch_size(const AttentionShape& shape, int64_t length) {
  const int64_t ld = round32(length);
  return 2 * ld * shape.dim + ld * shape.padded_dim() + 2 * kBackwardBlock * ld +
         2 * kBackwardBlock * shape.padded_dim() + 7 * 32;
}

void attention(ThreadPool& pool, const AttentionShape& shape, const Segment* segments,
               int64_t segment_count, const float* qkv, float* out, float* lse, float* scratch,
               int64_t scratch_size) {
  const KernelTable& kernel = kernels();
  pool.run(segment_count * shape.kv_heads, [&](int64_t task) {
    const Segment& segment = segments[task / shape.kv_heads];
    const int64_t kv = task % shape.kv_heads;
    const int64_t width = shape.width(), padded = round32(segment.count);
    const float* rows = qkv + segment.row * width;
    const float* k = rows + (shape.heads + kv) * shape.dim;
    const float* v = k + shape.kv_heads * shape.dim;
    float* keys = scratch + ThreadPool::worker() * scratch_size;
    float* values = keys + padded * shape.dim;
    float* scores = values + padded * shape.padded_dim();
    kernel.pack_transposed(k, segment.count, shape.dim, width, keys);
    pack_values(kernel, v, segment.count, shape.dim, width, values, padded * kPanel);
    for (int64_t h = kv * shape.group(); h < (kv + 1) * shape.group(); ++h)
      attend(kernel, shape, rows + h * shape.dim, segment.count, 0, {keys, values, padded * kPanel},
             out + segment.row * shape.query_width() + h * shape.dim,
             lse == nullptr ? nullptr : lse + segment.row * shape.heads + h, scores);
  });
}

void attention_backward(ThreadPool& pool, const AttentionShape& shape, const Segment* segments,
                        int64_t segment_count, const float* qkv, const float* out, const float* lse,
                        const float* dout, float* dqkv, float* scratch, int64_t scratch_size) {
  const KernelTable& kernel = kernels();
  pool.run(segment_count * shape.kv_heads, [&](int64_t task) {
    const Segment& segment = segments[task / shape.kv_heads];
    const int64_t kv = task % shape.kv_heads, length = segment.count, dim = shape.dim;
    const int64_t width = shape.width();
    const int64_t key_column = (shape.heads + kv) * dim;
    const int64_t value_column = key_column + shape.kv_heads * dim;
    const float* rows = qkv + segment.row * width;
    float* drows = dqkv + segment.row * width;
    const BackwardScratch s(shape, length, scratch + ThreadPool::worker() * scratch_size);
    kernel.pack_transposed(rows + key_column, length, dim, width, s.keys_t);
    kernel.pack_transposed(rows + value_column, length, dim, width, s.values_t);
    pack_values(kernel, rows + key_column, length, dim, width, s.keys, length * kPanel);
    for (int64_t i = 0; i < length; ++i) {
      std::memset(drows + i * width + key_column, 0, static_cast<size_t>(dim) * sizeof(float));
      std::memset(drows + i * width + value_column, 0, static_cast<size_t>(dim) * sizeof(float));
    }
    for (int64_t h = kv * shape.group(); h < (kv + 1) * shape.group(); ++h) {
      const int64_t at = segment.row * shape.query_width() + h * dim;
      const HeadView head{rows + h * dim,      out + at,
                          dout + at,           lse + segment.row * shape.heads + h,
                          drows + h * dim,     drows + key_column,
                          drows + value_column};
      for (int64_t first = 0; first < length; first += kBackwardBlock) {
        const int64_t count = std::min(kBackwardBlock, length - first);
        backward_queries(kernel, shape, head, s, length, first, count);
        backward_keys(kernel, shape, head, s, first, count);
      }
    }
  });
}

void attention_cached(ThreadPool& pool, const AttentionShape& shape, const CachedSegment* segments,
                      int64_t segment_count, const float* qkv, float* out, float* scratch,
                      int64_t scratch_size) {
  const KernelTable& kernel = kernels();
  int64_t products = 0;  // multiply-adds of scores and values
  for (int64_t i = 0; i < segment_count; ++i)
    products +=
        2 * segments[i].count * (segments[i].start + segments[i].count) * shape.query_width();
  pool.run(
      segment_count * shape.kv_heads,
      [&](int64_t task) {
        const CachedSegment& segment = segments[task / shape.kv_heads];
        const int64_t kv = task % shape.kv_heads, dim = shape.dim, padded_dim = shape.padded_dim();
        const int64_t width = shape.width(), capacity = segment.capacity;
        const float* rows = qkv + segment.row * width;
        float* keys = segment.cache + kv * capacity * (dim + padded_dim);
        float* values = keys + capacity * dim;
        for (int64_t i = 0; i < segment.count; ++i) {
          const int64_t position = segment.start + i;
          const float* k = rows + i * width + (shape.heads + kv) * dim;
          const float* v = k + shape.kv_heads * dim;
          float* key = keys + position / kPanel * dim * kPanel + position % kPanel;
          for (int64_t j = 0; j < dim; ++j) key[j * kPanel] = k[j];
          for (int64_t j = 0; j < padded_dim; ++j)
            values[j / kPanel * capacity * kPanel + position * kPanel + j % kPanel] =
                j < dim ? v[j] : 0.0f;
        }
        float* scores = scratch + ThreadPool::worker() * scratch_size;
        for (int64_t h = kv * shape.group(); h < (kv + 1) * shape.group(); ++h)
          attend(kernel, shape, rows + h * dim, segment.count, segment.start,
                 {keys, values, capacity * kPanel},
                 out + segment.row * shape.query_width() + h * dim, nullptr, scores);
      },
      products > kSmallWork);
}

}  // namespace covenant
