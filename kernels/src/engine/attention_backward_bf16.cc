// attention_backward_f32 with the operands of all five products rounded to bf16 and fp32 sums, as
// the layers' own products are in that format. The results are rounded as well: all that follows
// are products.
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
  Bf16 *query_panels, *dout_panels;      // of the same: [dim / 32][kBlock][32]
  float *scores, *dprobabilities;        // (kQueryBlock, ld)
  Bf16 *probabilities, *dscores;         // (kBlock, ld), row stride bf16_row(ld)
  float *dqueries, *dkeys, *dvalues;     // (kQueryBlock, dim), then (positions, dim)
  int64_t ld, dim_padded, panel_row, floats;

  Scratch(const AttentionShape& shape, int64_t length, float* base) {
    ld = round32(length);
    dim_padded = bf16_padded(shape.dim);
    panel_row = bf16_row(ld);
    Cut cut(base);
    for (Bf16** panels : {&keys_t, &values_t, &keys}) *panels = cut.take16(ld * dim_padded);
    for (Bf16** rows : {&queries, &douts}) *rows = cut.take16(kBlock * bf16_row(shape.dim));
    for (Bf16** panels : {&query_panels, &dout_panels}) *panels = cut.take16(kBlock * dim_padded);
    for (float** rows : {&scores, &dprobabilities}) *rows = cut.take(kQueryBlock * ld);
    for (Bf16** rows : {&probabilities, &dscores}) *rows = cut.take16(kBlock * panel_row);
    dqueries = cut.take(kQueryBlock * shape.dim);
    dkeys = cut.take(length * shape.dim);
    dvalues = cut.take(length * shape.dim);
    floats = cut.floats();
  }
};

// Rows of one head rounded, as they lie and in panels.
void round_rows(const KernelTable& kernel, const float* x, int64_t rows, int64_t dim,
                int64_t stride, Bf16* to, Bf16* panels) {
  for (int64_t i = 0; i < rows; ++i)
    kernel.round_bf16(x + i * stride, dim, bf16_padded(dim), to + i * bf16_row(dim));
  for (int64_t c = 0; c < dim; c += kPanel)
    kernel.zip_panel_bf16(to + c, std::min(kPanel, dim - c), rows, bf16_row(dim),
                          panels + c * kBlock);
}

// Fetches a row that is read after the next products: rows of one head lie far apart.
void fetch(const float* row, int64_t count) {
  for (int64_t i = 0; i < count; i += 16) __builtin_prefetch(row + i);
}

// Rotates the gradient of position i of a query or key back, and rounds it.
void put_unrotated(const KernelTable& kernel, const BackwardRows& rows, float* x, int64_t dim,
                   int64_t i, Bf16* to) {
  const int64_t at = i * (dim / 2);
  kernel.rope_backward(x, rows.cosine + at, rows.sine + at, 1, dim);
  kernel.round_bf16(x, dim, dim, to);
}

// Probabilities and score gradients of rows [first, first + rows), and their dQ. Zeros follow the
// last visible position of each row up to the end of the last panel that any of these rows sees.
void backward_queries(const KernelTable& kernel, const AttentionShape& shape,
                      const BackwardRows& rows, const QueryHeadView& head, const Scratch& s,
                      int64_t first, int64_t count) {
  const int64_t dim = shape.dim, out_width = shape.query_width(), seen = round32(first + count);
  const int64_t rounded_row = bf16_row(dim), to_row = bf16_row(shape.width());
  const float scale = score_scale(dim);
  for (int64_t r = 0; r < count; r += kQueryBlock) {
    const int64_t block = std::min(kQueryBlock, count - r);
    const int64_t row = first + r, visible = row + block;
    for (int64_t i = 0; i < block; ++i) fetch(head.out + (row + i) * out_width, dim);
    kernel.gemm_bf16(block, visible, s.dim_padded, s.queries + r * rounded_row, rounded_row,
                     s.keys_t, s.dim_padded * kPanel, nullptr, 0, s.scores, s.ld);
    kernel.gemm_bf16(block, visible, s.dim_padded, s.douts + r * rounded_row, rounded_row,
                     s.values_t, s.dim_padded * kPanel, nullptr, 0, s.dprobabilities, s.ld);
    for (int64_t i = 0; i < block; ++i) {
      const int64_t at = (row + i) * out_width, to = (r + i) * s.panel_row;
      const float delta = kernel.dot(head.dout + at, head.out + at, dim);
      kernel.softmax_backward_bf16(s.scores + i * s.ld, s.dprobabilities + i * s.ld, scale,
                                   head.lse[(row + i) * shape.heads], delta, row + i + 1, seen,
                                   s.probabilities + to, s.dscores + to);
    }
    kernel.gemm_bf16(block, dim, round32(visible), s.dscores + r * s.panel_row, s.panel_row, s.keys,
                     s.ld * kPanel, nullptr, 0, s.dqueries, dim);
    for (int64_t i = 0; i < block; ++i)
      put_unrotated(kernel, rows, s.dqueries + i * dim, dim, row + i,
                    head.dq.bf16 + (row + i) * to_row);
  }
}

// dK += dS^T Q and dV += P^T dO for the rows prepared by backward_queries; `fresh`: nothing has
// been added yet to the keys of these rows.
void backward_keys(const KernelTable& kernel, const AttentionShape& shape, const Scratch& s,
                   int64_t first, int64_t rows, bool fresh) {
  const int64_t dim = shape.dim, panel = kBlock * kPanel;
  const auto add = [&](int64_t key, int64_t count, int64_t skip, bool first_sum) {
    const int64_t from = skip * s.panel_row + key, at = skip * kPanel;
    float *dk = s.dkeys + key * dim, *dv = s.dvalues + key * dim;
    kernel.gemm_bf16_transposed(count, dim, rows - skip, s.dscores + from, s.panel_row,
                                s.query_panels + at, panel, first_sum ? nullptr : dk, dim, dk, dim);
    kernel.gemm_bf16_transposed(count, dim, rows - skip, s.probabilities + from, s.panel_row,
                                s.dout_panels + at, panel, first_sum ? nullptr : dv, dim, dv, dim);
  };
  if (first > 0) add(0, first, 0, false);
  // Earlier queries of this block do not see the keys of its later panels.
  for (int64_t key = first; key < first + rows; key += kPanel)
    add(key, std::min(kPanel, first + rows - key), key - first, fresh);
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
  pack_values_bf16(kernel, keys.keys, length, dim, width, s.keys, s.ld * kPanel);
  for (int64_t h = kv * shape.group(); h < (kv + 1) * shape.group(); ++h) {
    const QueryHeadView head(shape, rows, segment, h);
    for (int64_t first = 0; first < length; first += kBlock) {
      const int64_t count = std::min(kBlock, length - first);
      round_rows(kernel, head.q + first * width, count, dim, width, s.queries, s.query_panels);
      round_rows(kernel, head.dout + first * shape.query_width(), count, dim, shape.query_width(),
                 s.douts, s.dout_panels);
      backward_queries(kernel, shape, rows, head, s, first, count);
      backward_keys(kernel, shape, s, first, count, h == kv * shape.group());
    }
  }
  const int64_t to_row = bf16_row(width);
  for (int64_t i = 0; i < length; ++i) {
    put_unrotated(kernel, rows, s.dkeys + i * dim, dim, i, keys.dkeys.bf16 + i * to_row);
    kernel.round_bf16(s.dvalues + i * dim, dim, dim, keys.dvalues.bf16 + i * to_row);
  }
}

}  // namespace covenant
