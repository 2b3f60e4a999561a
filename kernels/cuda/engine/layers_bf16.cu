// Forward and backward through the decoder layers of a bf16 model in training: the residual stream and its
// gradient are fp32, everything between products is bf16.
#include "engine/attention_bf16.cuh"
#include "engine/math.cuh"
#include "engine/model.cuh"
#include "engine/optimizer.cuh"
#include "engine/rmsnorm.cuh"
#include "engine/rope.cuh"
#include "engine/swiglu.cuh"

namespace covenant::cuda {
namespace {

// Attention of rounded rows by the fp32 form, for heads wider than the fused one takes.
class Wide {
 public:
  Wide(Device& device, const AttentionRows& rows)
      : device_(device), rows_(rows), scope_(device.scratch()) {}

  void forward(const uint16_t* qkv, uint16_t* out, float* lse) {
    float* const sums = take(out_count());
    attention(device_, rows_, widened(qkv, qkv_count()), sums, lse);
    to_bf16(device_.stream(), sums, out_count(), out);
  }
  void backward(const uint16_t* qkv, const uint16_t* out, const float* lse, const uint16_t* dout,
                uint16_t* dqkv) {
    float* const sums = take(qkv_count());
    attention_backward(device_, rows_, widened(qkv, qkv_count()), widened(out, out_count()), lse,
                       widened(dout, out_count()), sums);
    to_bf16(device_.stream(), sums, qkv_count(), dqkv);
  }

 private:
  int64_t count() const { return rows_.sequences * rows_.length; }
  int64_t qkv_count() const { return count() * rows_.shape.width(); }
  int64_t out_count() const { return count() * rows_.shape.query_width(); }
  float* take(int64_t size) { return device_.scratch().take<float>(static_cast<uint64_t>(size)); }
  const float* widened(const uint16_t* x, int64_t size) {
    float* const out = take(size);
    to_f32(device_.stream(), x, size, out);
    return out;
  }

  Device& device_;
  const AttentionRows& rows_;
  Arena::Scope scope_;
};

}  // namespace

void Model::forward_layers_bf16(const Group& group, const Activations& activations) {
  const Layout& l = layout_;
  const int64_t rows = group.rows(), d = l.d, width = l.attention.width();
  const AttentionRows attended = {l.attention, group.sequences, group.length};
  const float* const p = state(COV_PARAMETERS);
  uint16_t* const hidden = activations.hidden.bf16;
  for (int64_t layer = 0; layer < l.layers; ++layer) {
    const Activations::Layer& a = activations.layers[static_cast<size_t>(layer)];
    float* const next = layer + 1 < l.layers ? activations.layers[static_cast<size_t>(layer + 1)].x
                                             : activations.last;
    rmsnorm(stream(), a.x, nullptr, p + l.norm1(layer), eps(), rows, d, a.n1, a.r1);
    linear_bf16(a.n1.bf16, rows, l.qkv(layer), width, d, a.qkv16);
    rope(stream(), a.qkv16, group.positions, cosine(), sine(), rows, width,
         l.attention.heads + l.attention.kv_heads, l.attention.dim, false);
    if (l.attention.dim <= kFusedDimMax)
      attention_bf16(device_, attended, a.qkv16, a.attention_rows.bf16, a.lse);
    else
      Wide(device_, attended).forward(a.qkv16, a.attention_rows.bf16, a.lse);
    linear(a.attention_rows, rows, l.o(layer), d, d, a.x, a.x2);
    rmsnorm(stream(), a.x2, nullptr, p + l.norm2(layer), eps(), rows, d, a.n2, a.r2);
    linear_bf16(a.n2.bf16, rows, l.gate_up(layer), 2 * l.f, d, a.gate_up16, hidden);
    linear(activations.hidden, rows, l.down(layer), d, l.f, a.x2, next);
  }
}

void Model::backward_layers_bf16(const Group& group, const Activations& activations, float* dx) {
  const Layout& l = layout_;
  const int64_t rows = group.rows(), d = l.d, f = l.f, width = l.attention.width();
  const AttentionRows attended = {l.attention, group.sequences, group.length};
  const float* const p = state(COV_PARAMETERS);
  const Arena::Scope scope(device_.scratch());
  const auto take = [&](int64_t count) {
    return Rows{nullptr, device_.scratch().take<uint16_t>(static_cast<uint64_t>(count))};
  };
  const Rows hidden = take(rows * f), dgate_up = take(rows * 2 * f), dn = take(rows * d);
  const Rows dqkv = take(rows * width);
  float* const partials =
      device_.scratch().take<float>(static_cast<uint64_t>(rmsnorm_partials_size(rows, d)));
  // dx as the products read it: rounded here, then by each norm's backward.
  const Rows dy = operand(dx, rows * d, take(rows * d).bf16);
  for (int64_t layer = l.layers - 1; layer >= 0; --layer) {
    const Activations::Layer& a = activations.layers[static_cast<size_t>(layer)];
    linear_input(dy, rows, l.down(layer), d, f, hidden);
    swiglu_bf16_backward(stream(), a.gate_up16, hidden.bf16, rows, f, hidden.bf16, dgate_up.bf16);
    linear_weight(dy, hidden, rows, l.down(layer), d, f);
    linear_input(dgate_up, rows, l.gate_up(layer), 2 * f, d, dn);
    linear_weight(dgate_up, a.n2, rows, l.gate_up(layer), 2 * f, d);
    rmsnorm_backward(stream(), a.x2, nullptr, p + l.norm2(layer), a.r2, dn, dx, rows, d, dx,
                     gradient(l.norm2(layer)), partials, dy.bf16);
    linear_input(dy, rows, l.o(layer), d, d, dn);
    linear_weight(dy, a.attention_rows, rows, l.o(layer), d, d);
    if (l.attention.dim <= kFusedDimMax)
      attention_bf16_backward(device_, attended, a.qkv16, a.attention_rows.bf16, a.lse, dn.bf16,
                              dqkv.bf16);
    else
      Wide(device_, attended).backward(a.qkv16, a.attention_rows.bf16, a.lse, dn.bf16, dqkv.bf16);
    rope(stream(), dqkv.bf16, group.positions, cosine(), sine(), rows, width,
         l.attention.heads + l.attention.kv_heads, l.attention.dim, true);
    linear_input(dqkv, rows, l.qkv(layer), width, d, dn);
    linear_weight(dqkv, a.n1, rows, l.qkv(layer), width, d);
    rmsnorm_backward(stream(), a.x, nullptr, p + l.norm1(layer), a.r1, dn, dx, rows, d, dx,
                     gradient(l.norm1(layer)), partials, dy.bf16);
  }
}

}  // namespace covenant::cuda
