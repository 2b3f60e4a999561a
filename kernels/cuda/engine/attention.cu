#include "engine/attention.cuh"

#include <algorithm>
#include <cmath>

#include "engine/gemm.cuh"
#include "engine/math.cuh"

namespace covenant::cuda {
namespace {

constexpr unsigned kThreads = 128;
constexpr int64_t kScores = 1 << 24;   // floats of one block of scores
constexpr int64_t kQueriesMin = 16;

// Of the scores (problem, query, key) of some queries: problem = sequence * kv_heads + kv head.
struct Block {
  int64_t problems, queries, first, ld;
  int64_t heads, kv_heads, group, member, length;
};

// The row of half a warp, and where its head's numbers are.
struct ScoreRow {
  bool live;
  int64_t scores, keys, row, head;
  __device__ explicit ScoreRow(const Block& b) {
    const int64_t at =
        static_cast<int64_t>(blockIdx.x) * (blockDim.x / kHalf) + threadIdx.x / kHalf;
    live = at < b.problems * b.queries;
    const int64_t problem = live ? at / b.queries : 0;
    const int64_t query = live ? at % b.queries : 0;
    scores = (problem * b.queries + query) * b.ld;
    keys = b.first + query + 1;
    row = problem / b.kv_heads * b.length + b.first + query;
    head = problem % b.kv_heads * b.group + b.member;
  }
};

// Scores become their softmax, with zeros behind the visible keys. lse = max + log(sum).
__global__ void softmax_kernel(Block b, float scale, float* scores, float* lse) {
  const ScoreRow at(b);
  float* const s = scores + at.scores;
  const int64_t n = at.live ? at.keys : 0;
  const int64_t lane = threadIdx.x % kHalf;
  float top = -kInfinity;
  for (int64_t i = lane; i < n; i += kHalf) {
    s[i] *= scale;
    top = top > s[i] ? top : s[i];
  }
  top = half_max(top);
  float sum = 0.0f;
  for (int64_t i = lane; i < n; i += kHalf) {
    s[i] = engine_exp(s[i] - top);
    sum += s[i];
  }
  sum = half_sum(sum);
  if (!at.live) return;
  const float inverse = 1.0f / sum;
  for (int64_t i = lane; i < n; i += kHalf) s[i] *= inverse;
  for (int64_t i = n + lane; i < b.first + b.queries; i += kHalf) s[i] = 0.0f;
  if (lane == 0)
    lse[at.row * b.heads + at.head] =
        static_cast<float>(static_cast<double>(top) + engine_log(static_cast<double>(sum)));
}

// s becomes p = exp(s * scale - lse), dp becomes ds = p * (dp - out . dout) * scale.
__global__ void softmax_backward_kernel(Block b, float scale, int64_t dim, const float* lse,
                                        const float* out, const float* dout, float* scores,
                                        float* dscores) {
  const ScoreRow at(b);
  const int64_t place = (at.row * b.heads + at.head) * dim;
  const float delta = half_dot(dout + place, out + place, at.live ? dim : 0);
  if (!at.live) return;
  float* const s = scores + at.scores;
  float* const ds = dscores + at.scores;
  const float row_lse = lse[at.row * b.heads + at.head];
  const int64_t lane = threadIdx.x % kHalf;
  for (int64_t i = lane; i < at.keys; i += kHalf) {
    const float p = engine_exp(s[i] * scale - row_lse);
    ds[i] = p * (ds[i] - delta) * scale;
    s[i] = p;
  }
  for (int64_t i = at.keys + lane; i < b.first + b.queries; i += kHalf) {
    s[i] = 0.0f;
    ds[i] = 0.0f;
  }
}

// The products of one block of queries: every sequence and kv head at once, one head of each group.
class Products {
 public:
  Products(const AttentionRows& rows, const Block& block) : rows_(rows), b_(block) {
    const AttentionShape& s = rows.shape;
    seq_qkv_ = rows.length * s.width();
    seq_out_ = rows.length * s.query_width();
    scores_ = {b_.queries * b_.ld, b_.kv_heads * b_.queries * b_.ld};
  }

  int64_t visible() const { return b_.first + b_.queries; }
  // Offsets of the block's first query in (q | k | v) and in the output, and of keys and values.
  int64_t query() const { return b_.first * rows_.shape.width() + b_.member * rows_.shape.dim; }
  int64_t output() const {
    return b_.first * rows_.shape.query_width() + b_.member * rows_.shape.dim;
  }
  int64_t key() const { return rows_.shape.heads * rows_.shape.dim; }
  int64_t value() const { return key() + rows_.shape.kv_heads * rows_.shape.dim; }
  BatchStride query_batch() const { return {b_.group * rows_.shape.dim, seq_qkv_}; }
  BatchStride output_batch() const { return {b_.group * rows_.shape.dim, seq_out_}; }
  BatchStride key_batch() const { return {rows_.shape.dim, seq_qkv_}; }

  // scores = X Y^T for rows of queries or outputs X, and keys or values Y.
  Product compare(const float* x, int64_t x_row, BatchStride x_batch, const float* y,
                     float* scores) const {
    return {b_.queries, visible(), rows_.shape.dim, x, x_row, 1, y, 1, rows_.shape.width(), nullptr,
            scores, b_.ld, b_.kv_heads, rows_.sequences, x_batch, key_batch(), scores_};
  }
  // c = scores Y.
  Product weigh(const float* scores, const float* y, float* c, int64_t c_row,
                   BatchStride c_batch) const {
    return {b_.queries, rows_.shape.dim, visible(), scores, b_.ld, 1, y, rows_.shape.width(), 1,
            nullptr, c, c_row, b_.kv_heads, rows_.sequences, scores_, key_batch(), c_batch};
  }
  // dy += scores^T X.
  Product spread(const float* scores, const float* x, int64_t x_row, BatchStride x_batch,
                    float* dy) const {
    return {visible(), rows_.shape.dim, b_.queries, scores, 1, b_.ld, x, x_row, 1, dy, dy,
            rows_.shape.width(), b_.kv_heads, rows_.sequences, scores_, x_batch, key_batch()};
  }

 private:
  const AttentionRows& rows_;
  const Block& b_;
  int64_t seq_qkv_, seq_out_;
  BatchStride scores_;
};

int64_t queries_at_once(const AttentionRows& rows) {
  const int64_t each = rows.sequences * rows.shape.kv_heads * rows.length;
  return std::min(rows.length, std::max(kQueriesMin, kScores / each));
}

// Calls body(block) for each head of a group and each block of queries, in order.
template <typename Body>
void for_blocks(const AttentionRows& rows, const Body& body) {
  const AttentionShape& s = rows.shape;
  const int64_t queries = queries_at_once(rows);
  for (int64_t member = 0; member < s.group(); ++member) {
    for (int64_t first = 0; first < rows.length; first += queries) {
      body(Block{rows.sequences * s.kv_heads, std::min(queries, rows.length - first), first,
                 rows.length, s.heads, s.kv_heads, s.group(), member, rows.length});
    }
  }
}

__global__ void clear_columns_kernel(float* x, int64_t rows, int64_t width, int64_t first) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t columns = width - first;
  if (i < rows * columns) x[i / columns * width + first + i % columns] = 0.0f;
}

float score_scale(int64_t dim) { return 1.0f / std::sqrt(static_cast<float>(dim)); }

uint64_t score_count(const AttentionRows& rows) {
  return static_cast<uint64_t>(rows.sequences * rows.shape.kv_heads * queries_at_once(rows) *
                               rows.length);
}

}  // namespace

void attention(Device& device, const AttentionRows& rows, const float* qkv, float* out, float* lse) {
  const AttentionShape& shape = rows.shape;
  const Stream stream = device.stream();
  const Arena::Scope scope(device.scratch());
  float* const scores = device.scratch().take<float>(score_count(rows));
  for_blocks(rows, [&](const Block& block) {
    const Products p(rows, block);
    multiply(stream,
             p.compare(qkv + p.query(), shape.width(), p.query_batch(), qkv + p.key(), scores));
    COVENANT_LAUNCH(softmax_kernel, blocks_of(block.problems * block.queries, kThreads / kHalf),
                    kThreads, 0, stream, block, score_scale(shape.dim), scores, lse);
    multiply(stream, p.weigh(scores, qkv + p.value(), out + p.output(), shape.query_width(),
                             p.output_batch()));
  });
}

void attention_backward(Device& device, const AttentionRows& rows, const float* qkv,
                        const float* out, const float* lse, const float* dout, float* dqkv) {
  const AttentionShape& shape = rows.shape;
  const int64_t width = shape.width(), out_width = shape.query_width();
  const Stream stream = device.stream();
  const Arena::Scope scope(device.scratch());
  const uint64_t count = score_count(rows);
  float* const scores = device.scratch().take<float>(count);
  float* const dscores = device.scratch().take<float>(count);
  const int64_t all = rows.sequences * rows.length;
  COVENANT_LAUNCH(clear_columns_kernel, blocks_of(all * (width - out_width), 256), 256, 0, stream,
                  dqkv, all, width, out_width);
  for_blocks(rows, [&](const Block& block) {
    const Products p(rows, block);
    const float* const q = qkv + p.query();
    const float* const o = dout + p.output();
    multiply(stream, p.compare(q, width, p.query_batch(), qkv + p.key(), scores));
    multiply(stream, p.compare(o, out_width, p.output_batch(), qkv + p.value(), dscores));
    COVENANT_LAUNCH(softmax_backward_kernel,
                    blocks_of(block.problems * block.queries, kThreads / kHalf), kThreads, 0, stream,
                    block, score_scale(shape.dim), shape.dim, lse, out, dout, scores, dscores);
    multiply(stream, p.weigh(dscores, qkv + p.key(), dqkv + p.query(), width, p.query_batch()));
    multiply(stream, p.spread(dscores, q, width, p.query_batch(), dqkv + p.key()));
    multiply(stream, p.spread(scores, o, out_width, p.output_batch(), dqkv + p.value()));
  });
}

}  // namespace covenant::cuda
