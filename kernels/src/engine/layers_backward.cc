// Backward through the decoder layers. Gradients of matrices wait for nothing but their operands and
// nothing waits for them, so their tasks fill the ends of runs of the pool that others need.
#include <algorithm>
#include <vector>

#include "engine/cut.h"
#include "engine/gemm.h"
#include "engine/lora.h"
#include "engine/model.h"
#include "engine/rowwise.h"

namespace covenant {
namespace {

// Memory of backward_layers, cut from one block; with no block it only counts.
struct BackwardWork {
  float *dhidden, *dn, *partials;
  float *scratch, *down_scratch;  // of gradients whose x has d columns, and of down's
  Operand hidden, dgate_up, dqkv;
  Bf16* dx16 = nullptr;  // dx rounded
  int64_t size;

  BackwardWork(const cov_model& model, int64_t rows, float* base) {
    const Layout& l = model.layout;
    const int64_t width = l.attention.width();
    Cut cut(base);
    const auto take16 = [&](int64_t columns) { return cut.take16(bf16_size(rows, columns)); };
    dhidden = cut.take(rows * l.f);
    dn = cut.take(rows * l.d);
    if (l.compute == Compute::kF32) {
      hidden = {dhidden, nullptr};
      dgate_up = {cut.take(rows * 2 * l.f), nullptr};
      dqkv = {cut.take(rows * width), nullptr};
    } else {
      hidden = {nullptr, take16(l.f)};
      dgate_up = {nullptr, take16(2 * l.f)};
      dqkv = {nullptr, take16(width)};
      dx16 = take16(l.d);
    }
    partials = cut.take(rmsnorm_partials_size(rows, l.d));
    scratch = cut.take(gradient_scratch_size(l.compute, rows, l.d));
    down_scratch = cut.take(gradient_scratch_size(l.compute, rows, l.f));
    size = cut.floats();
  }
};

// A matrix (n, k) at `offset` of the parameters, with its input and the gradient of its output.
struct Linear {
  Operand dy, x;
  int64_t n, k, offset;
  float* scratch;
};

using Gradients = std::vector<GradientTasks>;
using Loops = std::vector<ThreadPool::Loop>;

Loops with_products(Loops loops, const Gradients& gradients) {
  for (const GradientTasks& tasks : gradients) loops.push_back({tasks.count(), tasks});
  return loops;
}

// What the products of one call share.
struct Products {
  cov_model& model;
  int64_t rows;
  bool parallel;

  // Computes out = dy w. Returns the gradients of `matrices`, whose operands are packed meanwhile,
  // for a later run; those of adapters, when the base is frozen, are added at once instead.
  Gradients input(Operand dy, const PackedMatrix& w, float* out,
                  const std::vector<Linear>& matrices) const {
    const MultiplyTasks product(model.pool, dy, rows, w, nullptr, out);
    const Gradients gradients = prepare(matrices);
    Loops loops{{product.count(), product}};
    for (const GradientTasks& tasks : gradients)
      loops.push_back({tasks.packing().count(), tasks.packing()});
    model.pool.run_together(loops, parallel);
    return gradients;
  }

  Gradients prepare(const std::vector<Linear>& matrices) const {
    Gradients gradients;
    for (const Linear& a : matrices)
      if (model.lora != nullptr)
        lora_gradient(*model.lora, a.offset, a.dy, a.x, rows);
      else
        gradients.emplace_back(model.pool, model.layout.compute, a.dy, a.x, rows, a.n, a.k,
                               model.state(COV_GRADIENTS) + a.offset, a.scratch);
    return gradients;
  }
};

}  // namespace

int64_t backward_work_size(const cov_model& model, int64_t rows) {
  return BackwardWork(model, rows, nullptr).size;
}

void backward_layers(cov_model& model, const int32_t* tokens, const Segment* segments,
                     int64_t segment_count, Activations& activations,
                     float* dx, float* work) {
  const Layout& l = model.layout;
  const AttentionShape& shape = l.attention;
  const int64_t rows = activations.rows, d = l.d, f = l.f, width = shape.width();
  int64_t longest = 0;
  for (int64_t i = 0; i < segment_count; ++i) longest = std::max(longest, segments[i].count);
  const int64_t scratch_size = attention_backward_scratch_size(shape, l.compute, longest);
  ThreadPool& pool = model.pool;
  float* scratch = model.attention_scratch.reserve(model.memory, scratch_size * pool.threads());
  const float* p = model.parameters();
  const bool frozen = model.lora != nullptr;
  float* g = frozen ? nullptr : model.state(COV_GRADIENTS);
  const BackwardWork b(model, rows, work);
  const Products products{model, rows, rows * l.layer_size > kOneThreadProduct};
  const auto gain = [&](int64_t offset) { return frozen ? nullptr : g + offset; };
  const Operand dy = operand(pool, l.compute, dx, rows, d, b.dx16);
  clear_padding(b.dqkv, rows, width);
  Gradients waiting;  // for the next run that has nothing to wait for them
  for (int64_t layer = l.layers - 1; layer >= 0; --layer) {
    const Activations::Layer& a = activations.layers[static_cast<size_t>(layer)];
    const PackedWeights::Layer& w = model.backward_weights.layers[static_cast<size_t>(layer)];
    const MultiplyTasks hidden(pool, dy, rows, w.down, nullptr, b.dhidden);
    pool.run_together(with_products({{hidden.count(), hidden}}, waiting), products.parallel);
    swiglu_backward(pool, a.gate_up, b.dhidden, rows, f, b.hidden, b.dgate_up);
    waiting = products.input(b.dgate_up, w.gate_up, b.dn,
                             {{dy, b.hidden, d, f, l.down(layer), b.down_scratch},
                              {b.dgate_up, a.n2, 2 * f, d, l.gate_up(layer), b.scratch}});
    pool.run_together(with_products({}, waiting), products.parallel);
    rmsnorm_backward(pool, a.x2, p + l.norm2(layer), a.r2, b.dn, dx, rows, d, dx,
                     gain(l.norm2(layer)), b.partials, dy.bf16);

    waiting = products.input(dy, w.o, b.dn,
                             {{dy, a.att_operand, d, d, l.o(layer), b.scratch}});
    const auto attention = [&](int64_t task) {
      attention_backward(
          shape, l.compute,
          {a.qkv, a.att, a.lse, b.dn, model.cosine.data(), model.sine.data(), b.dqkv},
          segments[task / shape.kv_heads], task % shape.kv_heads,
          scratch + ThreadPool::worker() * scratch_size);
    };
    pool.run_together(with_products({{segment_count * shape.kv_heads, attention}}, waiting));
    const std::vector<Linear> qkv{{b.dqkv, a.n1, width, d, l.qkv(layer), b.scratch}};
    if (frozen && layer == 0) {
      products.prepare(qkv);
      return;  // nothing below learns
    }
    waiting = products.input(b.dqkv, w.qkv, b.dn, qkv);
    rmsnorm_backward(pool, a.x, p + l.norm1(layer), a.r1, b.dn, dx, rows, d, dx,
                     gain(l.norm1(layer)), b.partials, dy.bf16);
  }
  pool.run_together(with_products({}, waiting), products.parallel);
  embed_backward(pool, dx, tokens, rows, d, g);
}

}  // namespace covenant
