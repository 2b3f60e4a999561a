// Attention as blocks of matrix products: scores, softmax per row, weighted values.
#include <algorithm>

#include "engine/attention_blocks.h"

namespace covenant {
namespace {

constexpr int64_t kSmallWork = 1 << 20;  // multiply-adds not worth waking a thread for

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

}  // namespace

int64_t attention_scratch_size(const AttentionShape& shape, int64_t length) {
  return round32(length) * (shape.dim + shape.padded_dim() + kQueryBlock);
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
