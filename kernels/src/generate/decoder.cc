#include "generate/decoder.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "engine/isa/table.h"

namespace covenant {
namespace {

constexpr int64_t kRowBlock = 48;
constexpr int64_t kColumnBlock = 128;   // what the kernels take side by side for few rows
constexpr int64_t kLanes = 4;           // heads or rows whose values are summed together
constexpr int64_t kLogitsMax = 1 << 20; // floats of one chunk of logits

// Work not worth waking a thread for.
constexpr int64_t kSmallProduct = 1 << 19;    // multiply-adds
constexpr int64_t kSmallAttention = 1 << 18;  // multiply-adds
constexpr int64_t kSmallRows = 1 << 15;       // elements

int64_t round64(int64_t n) { return (n + 63) / 64 * 64; }
int64_t blocks(int64_t n, int64_t size) { return (n + size - 1) / size; }

// The rows from one on; none where the weights are not bytes.
Int8Rows rows_from(const Int8Rows& all, int64_t row) {
  if (all.bytes == nullptr) return {};
  return {all.bytes + row * all.stride, all.scales + row, all.stride};
}

template <typename T>
T element_of(float x) {
  if constexpr (sizeof(T) == 2)
    return bf16_of(x);
  else
    return x;
}

}  // namespace

void DecoderRows::add(const int32_t* token, int64_t added, int64_t start, const PageTable* pages) {
  segments.push_back({count(), added, start, pages});
  tokens.insert(tokens.end(), token, token + added);
  for (int64_t i = 0; i < added; ++i) positions.push_back(static_cast<int32_t>(start + i));
}

int64_t Decoder::logit_rows() const {
  return std::clamp<int64_t>(kLogitsMax / model_.layout.vocab, 8, 64);
}

void Decoder::reserve(int64_t rows, int64_t longest) {
  const Layout& l = model_.layout;
  rows = std::max(rows, logit_rows());
  if (rows > capacity_) {
    capacity_ = 0;
    const int64_t widest = round64(std::max(l.d, l.f));
    float* next = floats_.reserve(
        model_.memory,
        rows * (round64(l.d) * 3 + round64(l.attention.width()) + round64(l.f)) + round64(rows));
    const auto take = [&](int64_t floats) {
      float* p = next;
      next += floats;
      return p;
    };
    x_ = take(rows * round64(l.d));
    normed_ = take(rows * round64(l.d));
    attention_ = take(rows * round64(l.d));
    qkv_ = take(rows * round64(l.attention.width()));
    hidden_ = take(rows * round64(l.f));
    scales_ = take(round64(rows));
    if (weights_.type() == COV_WEIGHTS_INT8)
      int8_ = {bytes_.reserve(model_.memory, rows * widest), scales_, widest};
    logits_.reserve(model_.memory, logit_rows() * l.vocab);
    capacity_ = rows;
  }
  const int64_t score_row = (longest + kPagePositions - 1) / kPagePositions * kPagePositions;
  score_row_ = std::max(score_row_, score_row);
  const int64_t heads = std::max<int64_t>(kLanes, l.attention.group());
  scratch_size_ = round64(std::max(2 * kRowBlock * kColumnBlock, heads * score_row_));
  scratch_.reserve(model_.memory, scratch_size_ * model_.pool.threads());
}

void Decoder::to_bytes(const float* x, int64_t rows, int64_t k) {
  if (weights_.type() != COV_WEIGHTS_INT8) return;
  const GenerationKernels& kernel = generation_kernels();
  uint8_t* bytes = bytes_.data();
  model_.pool.run(
      blocks(rows, 4),
      [&](int64_t task) {
        for (int64_t i = 4 * task; i < std::min(rows, 4 * task + 4); ++i)
          scales_[i] = kernel.quantise(x + i * k, k, bytes + i * int8_.stride);
      },
      rows * k > kSmallRows);
}

void Decoder::normalise(const float* gain, int64_t rows) {
  const KernelTable& kernel = kernels();
  const int64_t d = model_.layout.d;
  model_.pool.run(
      blocks(rows, 8),
      [&](int64_t task) {
        for (int64_t i = 8 * task; i < std::min(rows, 8 * task + 8); ++i)
          kernel.rmsnorm(x_ + i * d, gain, model_.eps(), d, normed_ + i * d);
      },
      rows * d > kSmallRows);
  to_bytes(normed_, rows, d);
}

void Decoder::multiply(const GenerationMatrix& w, const float* x, int64_t rows, const float* residual,
                       float* out) {
  const GenerationKernels& kernel = generation_kernels();
  const int64_t columns = blocks(w.n, kColumnBlock);
  model_.pool.run(
      blocks(rows, kRowBlock) * columns,
      [&](int64_t task) {
        const int64_t row = task / columns * kRowBlock, first = task % columns * kColumnBlock;
        const Int8Rows bytes = rows_from(int8_, row);
        const int64_t at = row * w.n + first;
        multiply_block(kernel, w, std::min(kRowBlock, rows - row), first,
                       std::min(kColumnBlock, w.n - first), x + row * w.k, w.k, bytes,
                       residual == nullptr ? nullptr : residual + at, out + at, w.n);
      },
      rows * w.n * w.k > kSmallProduct);
}

// hidden = silu(gate) * up, block by block, so that gate and up stay in the cache.
void Decoder::gate_up(const GenerationWeights::Layer& layer, int64_t rows) {
  const GenerationKernels& kernel = generation_kernels();
  const KernelTable& row_kernel = kernels();
  const int64_t f = model_.layout.f, d = model_.layout.d, columns = blocks(f, kColumnBlock);
  model_.pool.run(
      blocks(rows, kRowBlock) * columns,
      [&](int64_t task) {
        const int64_t row = task / columns * kRowBlock, first = task % columns * kColumnBlock;
        const int64_t m = std::min(kRowBlock, rows - row), n = std::min(kColumnBlock, f - first);
        const Int8Rows bytes = rows_from(int8_, row);
        float* gate = scratch_.data() + ThreadPool::worker() * scratch_size_;
        float* up = gate + kRowBlock * kColumnBlock;
        multiply_block(kernel, layer.gate, m, first, n, normed_ + row * d, d, bytes, nullptr,
                       gate, kColumnBlock);
        multiply_block(kernel, layer.up, m, first, n, normed_ + row * d, d, bytes, nullptr,
                       up, kColumnBlock);
        for (int64_t i = 0; i < m; ++i)
          row_kernel.swiglu(gate + i * kColumnBlock, up + i * kColumnBlock, n,
                            hidden_ + (row + i) * f + first);
      },
      rows * f * d * 2 > kSmallProduct);
  to_bytes(hidden_, rows, f);
}

// Rotates queries and keys of a row, and puts keys and values into its page.
template <typename T>
void Decoder::store_row(const DecoderSegment& segment, int64_t i, int64_t offset) {
  const AttentionShape& shape = model_.layout.attention;
  const int64_t dim = shape.dim, padded = shape.padded_dim();
  const int64_t position = segment.start + i, slot = position % kPagePositions;
  float* row = qkv_ + (segment.row + i) * shape.width();
  kernels().rope(row, model_.cosine.data() + position * (dim / 2),
                 model_.sine.data() + position * (dim / 2), shape.heads + shape.kv_heads, dim);
  const float* k = row + shape.heads * dim;
  const float* v = k + shape.kv_heads * dim;
  T* page = reinterpret_cast<T*>(segment.pages->page(position / kPagePositions)) + offset;
  for (int64_t h = 0; h < shape.kv_heads; ++h, page += head_elements_, k += dim, v += dim) {
    T* values = page + kPagePositions * dim + slot * padded;
    for (int64_t j = 0; j < dim; ++j) {
      page[j * kPagePositions + slot] = element_of<T>(k[j]);
      values[j] = element_of<T>(v[j]);
    }
  }
}

void Decoder::store_keys(const DecoderRows& rows, int64_t layer) {
  const int64_t width = model_.layout.attention.width();
  const int64_t offset = layer * model_.layout.attention.kv_heads * head_elements_;
  const auto store = [&](const DecoderSegment& segment, int64_t i) {
    if (bf16_pages_ != 0)
      store_row<uint16_t>(segment, i, offset);
    else
      store_row<float>(segment, i, offset);
  };
  const int64_t count = static_cast<int64_t>(rows.segments.size());
  // Blocks of rows of one segment, or of segments with one row.
  if (rows.count() == count) {
    model_.pool.run(
        blocks(count, 4),
        [&](int64_t task) {
          for (int64_t s = 4 * task; s < std::min(count, 4 * task + 4); ++s)
            store(rows.segments[static_cast<size_t>(s)], 0);
        },
        rows.count() * width > kSmallRows);
    return;
  }
  for (const DecoderSegment& segment : rows.segments)
    model_.pool.run(
        blocks(segment.count, 16),
        [&](int64_t task) {
          for (int64_t i = 16 * task; i < std::min(segment.count, 16 * task + 16); ++i)
            store(segment, i);
        },
        segment.count * width > kSmallRows);
}

// One row of a sequence: the heads of `kv_count` kv heads, summed side by side.
void Decoder::attend_one(const DecoderSegment& segment, int64_t offset, int64_t first_kv,
                         int64_t kv_count, float* scratch) {
  const GenerationKernels& kernel = generation_kernels();
  const AttentionShape& shape = model_.layout.attention;
  const int64_t dim = shape.dim, n = segment.start + 1;
  const int64_t pages = blocks(n, kPagePositions);
  const float* q = qkv_ + segment.row * shape.width();
  float* out = attention_ + segment.row * shape.query_width();
  const float scale = 1.0f / std::sqrt(static_cast<float>(dim));
  AttentionLane lanes[kLanes];
  int64_t lane = 0;
  const int64_t last = (first_kv + kv_count) * shape.group();
  for (int64_t head = first_kv * shape.group(); head < last; ++head) {
    const int64_t at = offset + head / shape.group() * head_elements_;
    float* scores = scratch + lane * score_row_;
    kernel.scores[bf16_pages_](1, dim, q + head * dim, 0, segment.pages->data(), at, pages, scores, score_row_);
    kernel.softmax(scores, scale, n, n);
    lanes[lane++] = {scores, at + kPagePositions * dim, out + head * dim};
    if (lane < kLanes && head + 1 < last) continue;
    kernel.weighted[bf16_pages_](lanes, lane, segment.pages->data(), n, dim, shape.padded_dim());
    lane = 0;
  }
}

// `count` (at most kLanes) rows of one head. Positions that a row does not see weigh exactly 0.
void Decoder::attend_many(const DecoderSegment& segment, int64_t offset, int64_t head,
                          int64_t first, int64_t count, float* scratch) {
  const GenerationKernels& kernel = generation_kernels();
  const AttentionShape& shape = model_.layout.attention;
  const int64_t dim = shape.dim, seen = segment.start + first + count;
  const int64_t at = offset + head / shape.group() * head_elements_;
  const int64_t row = segment.row + first;
  const float scale = 1.0f / std::sqrt(static_cast<float>(dim));
  kernel.scores[bf16_pages_](count, dim, qkv_ + row * shape.width() + head * dim, shape.width(),
                segment.pages->data(), at, blocks(seen, kPagePositions), scratch, score_row_);
  AttentionLane lanes[kLanes];
  for (int64_t i = 0; i < count; ++i) {
    kernel.softmax(scratch + i * score_row_, scale, segment.start + first + i + 1, seen);
    lanes[i] = {scratch + i * score_row_, at + kPagePositions * dim,
                attention_ + (row + i) * shape.query_width() + head * dim};
  }
  kernel.weighted[bf16_pages_](lanes, count, segment.pages->data(), seen, dim, shape.padded_dim());
}

void Decoder::attend(const DecoderRows& rows, int64_t layer) {
  const AttentionShape& shape = model_.layout.attention;
  const int64_t offset = layer * shape.kv_heads * head_elements_;
  const int64_t kvs = std::max<int64_t>(1, kLanes / shape.group());
  // Tasks of a segment: groups of kv heads for one row, blocks of rows per head for more.
  struct Part {
    const DecoderSegment* segment;
    int64_t first_task;
  };
  std::vector<Part> parts;
  int64_t tasks = 0, products = 0;
  for (const DecoderSegment& segment : rows.segments) {
    parts.push_back({&segment, tasks});
    tasks += segment.count == 1 ? blocks(shape.kv_heads, kvs)
                                : shape.heads * blocks(segment.count, 4 * kLanes);
    products += 2 * segment.count * (segment.start + segment.count) * shape.query_width();
  }
  model_.pool.run(
      tasks,
      [&](int64_t task) {
        float* scratch = scratch_.data() + ThreadPool::worker() * scratch_size_;
        const auto after = std::upper_bound(
            parts.begin(), parts.end(), task,
            [](int64_t t, const Part& part) { return t < part.first_task; });
        const DecoderSegment& segment = *(after - 1)->segment;
        const int64_t own = task - (after - 1)->first_task;
        if (segment.count == 1) {
          const int64_t first = own * kvs;
          attend_one(segment, offset, first, std::min(kvs, shape.kv_heads - first), scratch);
          return;
        }
        const int64_t head = own % shape.heads, row = own / shape.heads * 4 * kLanes;
        for (int64_t i = row; i < std::min(segment.count, row + 4 * kLanes); i += kLanes)
          attend_many(segment, offset, head, i, std::min(kLanes, segment.count - i), scratch);
      },
      products > kSmallAttention);
}

void Decoder::run(const DecoderRows& rows) {
  const Layout& l = model_.layout;
  const int64_t m = rows.count();
  int64_t longest = 1;
  for (const DecoderSegment& segment : rows.segments)
    longest = std::max(longest, segment.start + segment.count);
  prepare_rope(model_, longest);
  reserve(m, longest);
  weights_.embed(rows.tokens.data(), m, x_);
  for (int64_t i = 0; i < l.layers; ++i) {
    const GenerationWeights::Layer& layer = weights_.layer(i);
    normalise(layer.norm1, m);
    multiply(layer.qkv, normed_, m, nullptr, qkv_);
    store_keys(rows, i);
    attend(rows, i);
    to_bytes(attention_, m, l.d);
    multiply(layer.o, attention_, m, x_, x_);
    normalise(layer.norm2, m);
    gate_up(layer, m);
    multiply(layer.down, hidden_, m, x_, x_);
  }
}

const float* Decoder::logits(const int64_t* rows, int64_t count) {
  const KernelTable& kernel = kernels();
  const int64_t d = model_.layout.d;
  model_.pool.run(
      count,
      [&](int64_t i) {
        kernel.rmsnorm(x_ + rows[i] * d, weights_.final_norm(), model_.eps(), d, normed_ + i * d);
      },
      count * d > kSmallRows);
  to_bytes(normed_, count, d);
  multiply(weights_.head(), normed_, count, nullptr, logits_.data());
  return logits_.data();
}

}  // namespace covenant
