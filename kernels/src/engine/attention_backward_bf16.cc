// attention_backward_f32 with the operands of all five products rounded to bf16 and fp32 sums, as
// the layers' own products are in that format. dK and dV are summed transposed, (dim, positions):
// then P and dS are right-hand sides, whose packing takes pairs of rows as they lie, and Q and dO
// are read as they lie too.
#include <algorithm>

#include "engine/attention_blocks.h"
#include "engine/gemm.h"

namespace covenant {
namespace {

constexpr int64_t kBlock = 96;  // rows whose probabilities are kept at once; whole query blocks

// Scratch of one task, cut from one block; with no block it only counts.
struct Scratch {
  Bf16 *keys_t, *values_t;  // panels of K^T and V^T: [position / 32][dim][32]
  Bf16* keys;               // panels of K: [dim / 32][positions][32]
  Bf16 *queries, *douts;    // rounded rows of one head: (kBlock, dim), row stride bf16_row(dim)
  float* probabilities;   // (kBlock, ld)
  float* dprobabilities;  // (kQueryBlock, ld)
  Bf16* dscores;          // (kBlock, ld), row stride bf16_row(ld)
  Bf16 *probabilities_panels, *dscores_panels;  // [position / 32][kBlock][32]
  float *dkeys_t, *dvalues_t;                  // (dim, ld)
  float* turned;                               // [dim / 32][positions][32]
  int64_t ld, dim_padded, floats = 0;

  Scratch(const AttentionShape& shape, int64_t length, float* base) {
    ld = round32(length);
    dim_padded = bf16_padded(shape.dim);
    const auto take = [&](int64_t count) {
      float* p = base == nullptr ? nullptr : base + floats;
      floats += round32(count);
      return p;
    };
    const auto take16 = [&](int64_t count) { return reinterpret_cast<Bf16*>(take(count / 2 + 1)); };
    keys_t = take16(ld * dim_padded);
    values_t = take16(ld * dim_padded);
    keys = take16(ld * dim_padded);
    queries = take16(kBlock * bf16_row(shape.dim));
    douts = take16(kBlock * bf16_row(shape.dim));
    probabilities = take(kBlock * ld);
    dprobabilities = take(kQueryBlock * ld);
    dscores = take16(kBlock * bf16_row(ld));
    probabilities_panels = take16(kBlock * ld);
    dscores_panels = take16(kBlock * ld);
    dkeys_t = take(shape.dim * ld);
    dvalues_t = take(shape.dim * ld);
    turned = take(length * shape.padded_dim());
  }
};

void round_rows(const KernelTable& kernel, const float* x, int64_t rows, int64_t dim,
                int64_t stride, Bf16* to) {
  for (int64_t i = 0; i < rows; ++i)
    kernel.round_bf16(x + i * stride, dim, bf16_padded(dim), to + i * bf16_row(dim));
}

// Fetches a row that is read after the next products: rows of one head lie far apart.
void fetch(const float* row, int64_t count) {
  for (int64_t i = 0; i < count; i += 16) __builtin_prefetch(row + i);
}

// Probabilities and score gradients of rows [first, first + rows), and their dQ. Zeros follow the
// last visible position of each row up to the end of the last panel that any of these rows sees.
void backward_queries(const KernelTable& kernel, const AttentionShape& shape,
                      const QueryHeadView& head, const Scratch& s, int64_t first, int64_t rows) {
  const int64_t dim = shape.dim, out_width = shape.query_width(), seen = round32(first + rows);
  const int64_t rounded_row = bf16_row(dim), ds_row = bf16_row(s.ld);
  const float scale = score_scale(dim);
  for (int64_t r = 0; r < rows; r += kQueryBlock) {
    const int64_t block = std::min(kQueryBlock, rows - r);
    const int64_t row = first + r, visible = row + block;
    float *p = s.probabilities + r * s.ld, *dp = s.dprobabilities;
    Bf16* ds = s.dscores + r * ds_row;
    for (int64_t i = 0; i < block; ++i)
      fetch(head.out + (row + i) * out_width, dim);
    kernel.gemm_bf16(block, visible, s.dim_padded, s.queries + r * rounded_row, rounded_row,
                     s.keys_t, s.dim_padded * kPanel, nullptr, 0, p, s.ld);
    kernel.gemm_bf16(block, visible, s.dim_padded, s.douts + r * rounded_row, rounded_row,
                     s.values_t, s.dim_padded * kPanel, nullptr, 0, dp, s.ld);
    for (int64_t i = 0; i < block; ++i) {
      const int64_t at = (row + i) * out_width;
      const float delta = kernel.dot(head.dout + at, head.out + at, dim);
      kernel.softmax_backward_bf16(p + i * s.ld, dp + i * s.ld, scale,
                                   head.lse[(row + i) * shape.heads], delta, row + i + 1, seen,
                                   ds + i * ds_row);
    }
    kernel.gemm_bf16(block, dim, round32(visible), ds, ds_row, s.keys, s.ld * kPanel,
                     nullptr, 0, head.dq + row * shape.width(), shape.width());
  }
}

// dK^T += Q^T dS and dV^T += dO^T P for the rows prepared by backward_queries; `fresh`: nothing has
// been added yet to the keys of these rows.
void backward_keys(const KernelTable& kernel, const AttentionShape& shape, const Scratch& s,
                   int64_t first, int64_t rows, bool fresh) {
  const int64_t dim = shape.dim, panel = kBlock * kPanel;
  const auto add = [&](int64_t key, int64_t count, int64_t skip, bool first_sum) {
    const int64_t at = key / kPanel * panel + skip * kPanel, row = bf16_row(dim);
    float *dk = s.dkeys_t + key, *dv = s.dvalues_t + key;
    kernel.gemm_bf16_transposed(dim, count, rows - skip, s.queries + skip * row, row,
                                s.dscores_panels + at, panel, first_sum ? nullptr : dk, s.ld, dk,
                                s.ld);
    kernel.gemm_bf16_transposed(dim, count, rows - skip, s.douts + skip * row, row,
                                s.probabilities_panels + at, panel, first_sum ? nullptr : dv, s.ld,
                                dv, s.ld);
  };
  for (int64_t key = 0; key < first + rows; key += kPanel) {
    const int64_t to = key * kBlock;
    kernel.pack_panel_bf16(s.probabilities + key, kPanel, rows, s.ld, s.probabilities_panels + to);
    kernel.zip_panel_bf16(s.dscores + key, kPanel, rows, bf16_row(s.ld),
                          s.dscores_panels + to);
  }
  if (first > 0) add(0, first, 0, false);
  // Earlier queries of this block do not see the keys of its later panels.
  for (int64_t key = first; key < first + rows; key += kPanel)
    add(key, std::min(kPanel, first + rows - key), key - first, fresh);
}

// to (length, dim), row stride shape.width(), from its transpose (dim, length), row stride s.ld.
void turn(const KernelTable& kernel, const AttentionShape& shape, const float* from, int64_t length,
          const Scratch& s, float* to) {
  kernel.pack_transposed(from, shape.dim, length, s.ld, s.turned);
  for (int64_t c = 0; c < shape.dim; c += kPanel) {
    const size_t bytes = static_cast<size_t>(std::min(kPanel, shape.dim - c)) * sizeof(float);
    for (int64_t i = 0; i < length; ++i)
      std::memcpy(to + i * shape.width() + c, s.turned + c * length + i * kPanel, bytes);
  }
}

}  // namespace

int64_t attention_backward_bf16_scratch_size(const AttentionShape& shape, int64_t length) {
  return Scratch(shape, length, nullptr).floats;
}

void attention_backward_bf16(const AttentionShape& shape, const BackwardRows& rows,
                             const Segment& segment, int64_t kv, float* scratch) {
  const KernelTable& kernel = kernels();
  const KeyHeadView keys(shape, rows, segment, kv);
  const int64_t length = keys.length, dim = shape.dim, width = shape.width();
  const Scratch s(shape, length, scratch);
  kernel.pack_transposed_bf16(keys.keys, length, dim, width, s.keys_t);
  kernel.pack_transposed_bf16(keys.values, length, dim, width, s.values_t);
  for (int64_t c = 0; c < dim; c += kPanel)
    kernel.pack_panel_bf16(keys.keys + c, std::min(kPanel, dim - c), length, width,
                           s.keys + c * s.ld);
  for (int64_t h = kv * shape.group(); h < (kv + 1) * shape.group(); ++h) {
    const QueryHeadView head(shape, rows, segment, h);
    for (int64_t first = 0; first < length; first += kBlock) {
      const int64_t count = std::min(kBlock, length - first);
      round_rows(kernel, head.q + first * width, count, dim, width, s.queries);
      round_rows(kernel, head.dout + first * shape.query_width(), count, dim, shape.query_width(),
                 s.douts);
      backward_queries(kernel, shape, head, s, first, count);
      backward_keys(kernel, shape, s, first, count, h == kv * shape.group());
    }
  }
  turn(kernel, shape, s.dkeys_t, length, s, keys.dkeys);
  turn(kernel, shape, s.dvalues_t, length, s, keys.dvalues);
}

}  // namespace covenant
