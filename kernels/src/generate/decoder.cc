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
void Decoder::store_row(const Part& part, int64_t i, int64_t offset) {
  const AttentionShape& shape = model_.layout.attention;
  const int64_t dim = shape.dim, padded = shape.padded_dim();
  const int64_t position = part.start + i, slot = position % kPagePositions;
  float* row = qkv_ + (part.row + i) * shape.width();
  kernels().rope(row, model_.cosine.data() + position * (dim / 2),
                 model_.sine.data() + position * (dim / 2), shape.heads + shape.kv_heads, dim);
  const float* k = row + shape.heads * dim;
  const float* v = k + shape.kv_heads * dim;
  T* page = static_cast<T*>(part.pages[position / kPagePositions]) + offset;
  for (int64_t h = 0; h < shape.kv_heads; ++h, page += head_elements_, k += dim, v += dim) {
    T* values = page + kPagePositions * dim + slot * padded;
    for (int64_t j = 0; j < dim; ++j) {
      page[j * kPagePositions + slot] = element_of<T>(k[j]);
      values[j] = element_of<T>(v[j]);
    }
  }
}

void Decoder::store_keys(int64_t layer) {
  const int64_t width = model_.layout.attention.width();
  const int64_t offset = layer * model_.layout.attention.kv_heads * head_elements_;
  const auto store = [&](const Part& part, int64_t i) {
    if (bf16_pages_ != 0)
      store_row<uint16_t>(part, i, offset);
    else
      store_row<float>(part, i, offset);
  };
  const int64_t count = static_cast<int64_t>(parts_.size());
  // Blocks of rows of one segment, or of segments with one row.
  if (rows_->count() == count) {
    model_.pool.run(
        blocks(count, 4),
        [&](int64_t task) {
          for (int64_t s = 4 * task; s < std::min(count, 4 * task + 4); ++s)
            store(parts_[static_cast<size_t>(s)], 0);
        },
        count * width > kSmallRows);
    return;
  }
  for (const Part& part : parts_)
    model_.pool.run(
        blocks(part.count, 16),
        [&](int64_t task) {
          for (int64_t i = 16 * task; i < std::min(part.count, 16 * task + 16); ++i)
            store(part, i);
        },
        part.count * width > kSmallRows);
}

// One row of a sequence: the heads of `kv_count` kv heads, summed side by side.
void Decoder::attend_one(const Part& part, int64_t offset, int64_t first_kv,
                         int64_t kv_count, float* scratch) {
  const GenerationKernels& kernel = generation_kernels();
  const AttentionShape& shape = model_.layout.attention;
  const int64_t dim = shape.dim, n = part.start + 1;
  const int64_t pages = blocks(n, kPagePositions);
  const float* q = qkv_ + part.row * shape.width();
  float* out = attention_ + part.row * shape.query_width();
  const float scale = 1.0f / std::sqrt(static_cast<float>(dim));
  AttentionLane lanes[kLanes];
  int64_t lane = 0;
  const int64_t last = (first_kv + kv_count) * shape.group();
  for (int64_t head = first_kv * shape.group(); head < last; ++head) {
    const int64_t at = offset + head / shape.group() * head_elements_;
    float* scores = scratch + lane * score_row_;
    kernel.scores[bf16_pages_](1, dim, q + head * dim, 0, part.pages, at, pages, scores, score_row_);
    kernel.softmax(scores, scale, n, n);
    lanes[lane++] = {scores, at + kPagePositions * dim, out + head * dim};
    if (lane < kLanes && head + 1 < last) continue;
    kernel.weighted[bf16_pages_](lanes, lane, part.pages, n, dim, shape.padded_dim());
    lane = 0;
  }
}

// `count` (at most kLanes) rows of one head. Positions that a row does not see weigh exactly 0.
void Decoder::attend_many(const Part& part, int64_t offset, int64_t head,
                          int64_t first, int64_t count, float* scratch) {
  const GenerationKernels& kernel = generation_kernels();
  const AttentionShape& shape = model_.layout.attention;
  const int64_t dim = shape.dim, seen = part.start + first + count;
  const int64_t at = offset + head / shape.group() * head_elements_;
  const int64_t row = part.row + first;
  const float scale = 1.0f / std::sqrt(static_cast<float>(dim));
  kernel.scores[bf16_pages_](count, dim, qkv_ + row * shape.width() + head * dim, shape.width(),
                part.pages, at, blocks(seen, kPagePositions), scratch, score_row_);
  AttentionLane lanes[kLanes];
  for (int64_t i = 0; i < count; ++i) {
    kernel.softmax(scratch + i * score_row_, scale, part.start + first + i + 1, seen);
    lanes[i] = {scratch + i * score_row_, at + kPagePositions * dim,
                attention_ + (row + i) * shape.query_width() + head * dim};
  }
  kernel.weighted[bf16_pages_](lanes, count, part.pages, seen, dim, shape.padded_dim());
}

void Decoder::attend(int64_t layer) {
  const AttentionShape& shape = model_.layout.attention;
  const int64_t offset = layer * shape.kv_heads * head_elements_;
  const int64_t kvs = std::max<int64_t>(1, kLanes / shape.group());
  model_.pool.run(
      attention_tasks_,
      [&](int64_t task) {
        float* scratch = scratch_.data() + ThreadPool::worker() * scratch_size_;
        const auto after = std::upper_bound(
            parts_.begin(), parts_.end(), task,
            [](int64_t t, const Part& part) { return t < part.first_task; });
        const Part& part = *(after - 1);
        const int64_t own = task - part.first_task;
        if (part.count == 1) {
          const int64_t first = own * kvs;
          attend_one(part, offset, first, std::min(kvs, shape.kv_heads - first), scratch);
          return;
        }
        const int64_t head = own % shape.heads, row = own / shape.heads * 4 * kLanes;
        for (int64_t i = row; i < std::min(part.count, row + 4 * kLanes); i += kLanes)
          attend_many(part, offset, head, i, std::min(kLanes, part.count - i), scratch);
      },
      attention_products_ > kSmallAttention);
}

// Where the pages of the rows lie, and the tasks of attention: of a segment groups of kv heads for one row,
// blocks of rows per head for more.
void Decoder::locate(const DecoderRows& rows) {
  const AttentionShape& shape = model_.layout.attention;
  const int64_t kvs = std::max<int64_t>(1, kLanes / shape.group());
  rows_ = &rows;
  addresses_.clear();
  parts_.clear();
  for (const DecoderSegment& segment : rows.segments)
    for (const int32_t page : segment.pages->pages()) addresses_.push_back(pages_.data(page));
  void* const* next = addresses_.data();
  attention_tasks_ = attention_products_ = 0;
  for (const DecoderSegment& segment : rows.segments) {
    parts_.push_back({segment.row, segment.count, segment.start, next, attention_tasks_});
    next += segment.pages->pages().size();
    attention_tasks_ += segment.count == 1 ? blocks(shape.kv_heads, kvs)
                                           : shape.heads * blocks(segment.count, 4 * kLanes);
    attention_products_ += 2 * segment.count * (segment.start + segment.count) * shape.query_width();
  }
}

void Decoder::run(const DecoderRows& rows) {
  const Layout& l = model_.layout;
  const int64_t m = rows.count();
  int64_t longest = 1;
  for (const DecoderSegment& segment : rows.segments)
    longest = std::max(longest, segment.start + segment.count);
  prepare_rope(model_, longest);
  reserve(m, longest);
  locate(rows);
  weights_.embed(rows.tokens.data(), m, x_);
  for (int64_t i = 0; i < l.layers; ++i) {
    const GenerationWeights::Layer& layer = weights_.layer(i);
    normalise(layer.norm1, m);
    multiply(layer.qkv, normed_, m, nullptr, qkv_);
    store_keys(i);
    attend(i);
    to_bytes(attention_, m, l.d);
    multiply(layer.o, attention_, m, x_, x_);
    normalise(layer.norm2, m);
    gate_up(layer, m);
    multiply(layer.down, hidden_, m, x_, x_);
  }
}

const float* Decoder::logits(int64_t first, int64_t count) {
  const KernelTable& kernel = kernels();
  const int64_t d = model_.layout.d;
  model_.pool.run(
      count,
      [&](int64_t i) {
        kernel.rmsnorm(hidden(first + i), weights_.final_norm(), model_.eps(), d, normed_ + i * d);
      },
      count * d > kSmallRows);
  to_bytes(normed_, count, d);
  multiply(weights_.head(), normed_, count, nullptr, logits_.data());
  return logits_.data();
}

}  // namespace covenant
