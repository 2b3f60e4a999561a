// Backward through the decoder layers. The gradient of a matrix and that of its input do not wait for
// each other, so their tasks share runs of the pool: the small ones of packing fill the ends.
#include <algorithm>

#include "engine/gemm.h"
#include "engine/lora.h"
#include "engine/model.h"
#include "engine/rowwise.h"

namespace covenant {
namespace {

int64_t round16(int64_t n) { return (n + 15) / 16 * 16; }

// Memory of backward_layers, cut from one block; with no block it only counts.
struct BackwardWork {
  float *dhidden, *dn, *dqkv, *partials;
  float *scratch, *down_scratch;  // of gradients whose x has d columns, and of down's
  Operand hidden, dgate_up;
  Bf16 *dx16 = nullptr, *dqkv16 = nullptr;  // roundings
  int64_t size = 0;

  BackwardWork(const cov_model& model, int64_t rows, float* base) {
    const Layout& l = model.layout;
    const int64_t width = l.attention.width();
    const auto take = [&](int64_t floats) {
      float* p = base == nullptr ? nullptr : base + size;
      size += round16(floats);
      return p;
    };
    const auto take16 = [&](int64_t columns) {
      return reinterpret_cast<Bf16*>(take((bf16_size(rows, columns) + 1) / 2));
    };
    dhidden = take(rows * l.f);
    dn = take(rows * l.d);
    dqkv = take(rows * width);
    if (l.compute == Compute::kF32) {
      hidden = {dhidden, nullptr};
      dgate_up = {take(rows * 2 * l.f), nullptr};
    } else {
      hidden = {nullptr, take16(l.f)};
      dgate_up = {nullptr, take16(2 * l.f)};
      dx16 = take16(l.d);
      dqkv16 = take16(width);
    }
    partials = take(rmsnorm_partials_size(rows, l.d));
    scratch = take(gradient_scratch_size(l.compute, rows, l.d, model.pool.threads()));
    down_scratch = take(gradient_scratch_size(l.compute, rows, l.f, model.pool.threads()));
  }
};

// A matrix (n, k) at `offset` of the parameters, with its input and the gradient of its output.
struct Linear {
  Operand dy, x;
  int64_t n, k, offset;
  float* scratch;
};

// What the products of one call share.
struct Products {
  cov_model& model;
  int64_t rows;
  float* gradients;  // null: the base is frozen, only the adapters have gradients

  // out = a.dy w and the gradient of `a`, and that of another matrix that is as far.
  void backward(const Linear& a, const PackedMatrix& w, float* out,
                const Linear* other = nullptr) const {
    const MultiplyTasks input(model.pool, a.dy, rows, w, nullptr, out);
    if (gradients == nullptr) {
      model.pool.run(input.count(), input);
      for (const Linear* linear : {other, &a})
        if (linear != nullptr) adapter_gradient(*linear);
      return;
    }
    const GradientTasks first = gradient(other == nullptr ? a : *other), second = gradient(a);
    const int64_t both = other == nullptr ? 0 : 1;
    const bool large = rows * a.n * a.k > kOneThreadProduct;
    model.pool.run_together(
        {{input.count(), input},
         {both * first.packing_count(), [&](int64_t task) { first.pack(task); }},
         {second.packing_count(), [&](int64_t task) { second.pack(task); }}},
        large);
    model.pool.run_together({{both * first.count(), first}, {second.count(), second}}, large);
  }

  void adapter_gradient(const Linear& a) const {
    lora_gradient(*model.lora, a.offset, a.dy, a.x, rows);
  }

 private:
  GradientTasks gradient(const Linear& a) const {
    return {model.pool, model.layout.compute, a.dy,      a.x, rows, a.n, a.k,
            gradients + a.offset, a.scratch};
  }
};

}  // namespace

int64_t backward_work_size(const cov_model& model, int64_t rows) {
  return BackwardWork(model, rows, nullptr).size;
}

void backward_layers(cov_model& model, const int32_t* tokens, const int32_t* positions,
                     const Segment* segments, int64_t segment_count, Activations& activations,
                     float* dx, float* work) {
  const Layout& l = model.layout;
  const int64_t rows = activations.rows, d = l.d, f = l.f, width = l.attention.width();
  const int64_t rotated = l.attention.heads + l.attention.kv_heads;
  int64_t longest = 0;
  for (int64_t i = 0; i < segment_count; ++i) longest = std::max(longest, segments[i].count);
  const int64_t scratch_size = attention_backward_scratch_size(l.attention, l.compute, longest);
  float* scratch =
      model.attention_scratch.reserve(model.memory, scratch_size * model.pool.threads());
  const float* p = model.parameters();
  const bool frozen = model.lora != nullptr;
  float* g = frozen ? nullptr : model.state(COV_GRADIENTS);
  ThreadPool& pool = model.pool;
  const BackwardWork b(model, rows, work);
  const Products products{model, rows, g};
  const auto gain = [&](int64_t offset) { return frozen ? nullptr : g + offset; };
  Operand dy = operand(pool, l.compute, dx, rows, d, b.dx16);
  const Operand dqkv = l.compute == Compute::kF32 ? Operand{b.dqkv, nullptr} : Operand{nullptr, b.dqkv16};
  for (int64_t layer = l.layers - 1; layer >= 0; --layer) {
    const Activations::Layer& a = activations.layers[static_cast<size_t>(layer)];
    const PackedWeights::Layer& w = model.backward_weights.layers[static_cast<size_t>(layer)];
    multiply(pool, dy, rows, w.down, nullptr, b.dhidden);
    swiglu_backward(pool, a.gate_up, b.dhidden, rows, f, b.hidden, b.dgate_up);
    const Linear down{dy, b.hidden, d, f, l.down(layer), b.down_scratch};
    products.backward({b.dgate_up, a.n2, 2 * f, d, l.gate_up(layer), b.scratch}, w.gate_up, b.dn,
                      &down);
    rmsnorm_backward(pool, a.x2, p + l.norm2(layer), a.r2, b.dn, dx, rows, d, dx,
                     gain(l.norm2(layer)), b.partials, dy.bf16);
    products.backward({dy, a.att_operand, d, d, l.o(layer), b.scratch}, w.o, b.dn);
    attention_backward(pool, l.attention, l.compute, segments, segment_count,
                       {a.qkv, a.att, a.lse, b.dn, b.dqkv}, scratch, scratch_size);
    rope_backward(pool, b.dqkv, positions, model.cosine.data(), model.sine.data(), rows, width,
                  rotated, l.attention.dim, dqkv.bf16);
    const Linear qkv{dqkv, a.n1, width, d, l.qkv(layer), b.scratch};
    if (frozen && layer == 0) return products.adapter_gradient(qkv);  // nothing below learns
    products.backward(qkv, w.qkv, b.dn);
    rmsnorm_backward(pool, a.x, p + l.norm1(layer), a.r1, b.dn, dx, rows, d, dx,
                     gain(l.norm1(layer)), b.partials, dy.bf16);
  }
  embed_backward(pool, dx, tokens, rows, d, g);
}

}  // namespace covenant
