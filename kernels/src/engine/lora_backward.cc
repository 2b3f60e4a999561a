// With y = x W'^T, W' = W + s B A, and t = x (s A)^T, u = dy (s B): dB = dy^T t, dA = u^T x. The
// gradient of the whole matrix is never formed. All four are the engine's own products, so their
// bits depend on no thread count and, in fp32, on no CPU path.
#include <algorithm>
#include <cstring>

#include "engine/lora.h"
#include "engine/model.h"

namespace covenant {
namespace {

int64_t round16(int64_t n) { return (n + 15) / 16 * 16; }

// Memory of one group's backward, cut from one block; with no block it only counts.
struct LoraWork {
  float *t, *product, *scratch;
  Bf16* rounded;
  int64_t size = 0;

  LoraWork(const cov_lora& lora, int64_t rows, float* base) {
    const Compute compute = lora.model->layout.compute;
    int64_t rank = 0, product_size = 0, inner = 0;
    for (const cov_lora::Group& group : lora.groups) {
      const int64_t r = lora.group_rank(group);
      rank = std::max(rank, r);
      product_size = std::max(product_size, r * std::max(group.n, group.k));
      inner = std::max({inner, group.k, r});
    }
    const auto take = [&](int64_t floats) {
      float* p = base == nullptr ? nullptr : base + size;
      size += round16(floats);
      return p;
    };
    t = take(rows * rank);
    rounded = reinterpret_cast<Bf16*>(
        take(compute == Compute::kF32 ? 0 : (bf16_size(rows, rank) + 1) / 2));
    product = take(product_size);
    scratch = take(gradient_scratch_size(compute, rows, inner));
  }
};

// s A stacked, or s B block diagonal, into out.
void gather(const cov_lora& lora, const cov_lora::Group& group, bool is_a, float* out) {
  const float* p = lora.buffers[COV_PARAMETERS].data();
  const int64_t rank = lora.rank, total = lora.group_rank(group);
  if (!is_a) std::fill_n(out, group.n * total, 0.0f);
  for (size_t i = 0; i < group.count; ++i) {
    const cov_lora::Adapter& m = lora.adapters[group.first + i];
    const int64_t column = static_cast<int64_t>(i) * rank;
    if (is_a) {
      for (int64_t j = 0; j < rank * m.k; ++j) out[column * m.k + j] = lora.scale * p[m.a + j];
      continue;
    }
    const int64_t first = (m.offset - group.offset) / m.k;
    for (int64_t row = 0; row < m.n; ++row)
      for (int64_t r = 0; r < rank; ++r)
        out[(first + row) * total + column + r] = lora.scale * p[m.b + row * rank + r];
  }
}

}  // namespace

void prepare_lora(cov_lora& lora, int64_t rows) {
  if (lora.merged) throw Failure{cov_error(COV_FAILED_PRECONDITION, kMergedSentence)};
  cov_model& model = *lora.model;
  const Compute compute = model.layout.compute;
  lora.state(COV_GRADIENTS);
  float* product =
      lora.work.reserve(model.memory, LoraWork(lora, rows, nullptr).size);  // gathers them first
  product = LoraWork(lora, rows, product).product;
  int64_t bytes = 0;
  for (size_t i = 0; i < lora.groups.size(); ++i) {
    const cov_lora::Group& group = lora.groups[i];
    const int64_t rank = lora.group_rank(group);
    lora.factors[i] = {{compute, group.k, rank, nullptr}, {compute, group.n, rank, nullptr}};
    bytes += packed_bytes(compute, group.k, rank) + packed_bytes(compute, group.n, rank);
  }
  char* next = lora.packed.reserve(model.memory, bytes);
  for (size_t i = 0; i < lora.groups.size(); ++i) {
    cov_lora::Packed& to = lora.factors[i];
    to.a.data = next;
    next += packed_bytes(compute, to.a.k, to.a.n);
    gather(lora, lora.groups[i], true, product);
    pack_forward(model.pool, product, to.a);
    to.b.data = next;
    next += packed_bytes(compute, to.b.k, to.b.n);
    gather(lora, lora.groups[i], false, product);
    pack_backward(model.pool, product, to.b);
  }
}

void lora_gradient(cov_lora& lora, int64_t offset, Operand dy, Operand x, int64_t rows) {
  const int64_t index = lora.group_at(offset);
  if (index < 0) return;
  const cov_lora::Group& group = lora.groups[static_cast<size_t>(index)];
  const cov_lora::Packed& factors = lora.factors[static_cast<size_t>(index)];
  ThreadPool& pool = lora.model->pool;
  const Compute compute = lora.model->layout.compute;
  const int64_t rank = lora.rank, total = lora.group_rank(group);
  const LoraWork w(lora, rows, lora.work.data());
  float* g = lora.state(COV_GRADIENTS);
  const auto product = [&](Operand left, Operand right, int64_t n, int64_t k) {
    std::fill_n(w.product, n * k, 0.0f);
    multiply_gradient(pool, compute, left, right, rows, n, k, w.product, w.scratch);
  };
  multiply(pool, x, rows, factors.a, nullptr, w.t);
  product(dy, operand(pool, compute, w.t, rows, total, w.rounded), group.n, total);
  for (size_t i = 0; i < group.count; ++i) {
    const cov_lora::Adapter& m = lora.adapters[group.first + i];
    const int64_t first = (m.offset - offset) / m.k, column = static_cast<int64_t>(i) * rank;
    for (int64_t row = 0; row < m.n; ++row)
      for (int64_t r = 0; r < rank; ++r)
        g[m.b + row * rank + r] += w.product[(first + row) * total + column + r];
  }
  multiply(pool, dy, rows, factors.b, nullptr, w.t);
  product(operand(pool, compute, w.t, rows, total, w.rounded), x, total, group.k);
  for (size_t i = 0; i < group.count; ++i) {
    const cov_lora::Adapter& m = lora.adapters[group.first + i];
    const float* from = w.product + static_cast<int64_t>(i) * rank * m.k;
    for (int64_t j = 0; j < rank * m.k; ++j) g[m.a + j] += from[j];
  }
}

}  // namespace covenant
