// Forward and backward through the decoder layers (src/engine/layers.cc).
#include "engine/attention.cuh"
#include "engine/cutter.cuh"
#include "engine/math.cuh"
#include "engine/model.cuh"
#include "engine/rmsnorm.cuh"
#include "engine/rope.cuh"
#include "engine/swiglu.cuh"

namespace covenant::cuda {
namespace {

Rows take_rows(Cutter& cutter, Compute compute, int64_t count) {
  if (compute == Compute::kF32) return {cutter.take<float>(count), nullptr};
  return {nullptr, cutter.take<uint16_t>(count)};
}

}  // namespace

void Activations::reserve(Device& device, const Layout& l, int64_t rows, bool shared) {
  const bool rounded = l.compute != Compute::kF32;
  if (rows <= capacity_ && shared == shared_) return;
  capacity_ = 0;
  layers.resize(static_cast<size_t>(l.layers));
  const auto cut = [&](Cutter cutter) {
    for (size_t i = 0; i < layers.size(); ++i) {
      Layer& layer = layers[i];
      if (shared && i > 0) {
        layer = layers[0];
        continue;
      }
      layer.x = cutter.take<float>(rows * l.d);
      layer.r1 = cutter.take<float>(rows);
      layer.qkv = layer.attention = layer.gate_up = nullptr;
      layer.qkv16 = layer.gate_up16 = nullptr;
      if (rounded) {
        layer.qkv16 = cutter.take<uint16_t>(rows * l.attention.width());
        layer.gate_up16 = cutter.take<uint16_t>(rows * 2 * l.f);
      } else {
        layer.qkv = cutter.take<float>(rows * l.attention.width());
        layer.attention = cutter.take<float>(rows * l.d);
        layer.gate_up = cutter.take<float>(rows * 2 * l.f);
      }
      layer.lse = cutter.take<float>(rows * l.attention.heads);
      layer.x2 = cutter.take<float>(rows * l.d);
      layer.r2 = cutter.take<float>(rows);
      layer.n1 = take_rows(cutter, l.compute, rows * l.d);
      layer.n2 = take_rows(cutter, l.compute, rows * l.d);
      layer.attention_rows = l.compute == Compute::kF32
                                 ? Rows{layer.attention, nullptr}
                                 : take_rows(cutter, l.compute, rows * l.d);
    }
    last = cutter.take<float>(rows * l.d);
    hidden = take_rows(cutter, l.compute, rows * l.f);
    return cutter.bytes();
  };
  const uint64_t bytes = cut(Cutter(nullptr));
  device.finish();  // the old memory may still be in use
  data_ = Buffer<char>();
  data_ = Buffer<char>(device, bytes);
  cut(Cutter(data_.data()));
  capacity_ = rows;
  shared_ = shared;
}

void Model::forward_layers(const Group& group, const Activations& activations) {
  if (bf16()) return forward_layers_bf16(group, activations);
  const Layout& l = layout_;
  const int64_t rows = group.rows(), d = l.d;
  const AttentionRows attended = {l.attention, group.sequences, group.length};
  const float* const p = state(COV_PARAMETERS);
  for (int64_t layer = 0; layer < l.layers; ++layer) {
    const Activations::Layer& a = activations.layers[static_cast<size_t>(layer)];
    float* const next = layer + 1 < l.layers ? activations.layers[static_cast<size_t>(layer + 1)].x
                                             : activations.last;
    rmsnorm(stream(), a.x, nullptr, p + l.norm1(layer), eps(), rows, d, a.n1, a.r1);
    linear(a.n1, rows, l.qkv(layer), l.attention.width(), d, nullptr, a.qkv);
    rope(stream(), a.qkv, group.positions, cosine(), sine(), rows, l.attention.width(),
         l.attention.heads + l.attention.kv_heads, l.attention.dim, false);
    attention(device_, attended, a.qkv, a.attention, a.lse);
    linear(a.attention_rows, rows, l.o(layer), d, d, a.x, a.x2);
    rmsnorm(stream(), a.x2, nullptr, p + l.norm2(layer), eps(), rows, d, a.n2, a.r2);
    linear(a.n2, rows, l.gate_up(layer), 2 * l.f, d, nullptr, a.gate_up);
    swiglu(stream(), a.gate_up, rows, l.f, activations.hidden);
    linear(activations.hidden, rows, l.down(layer), d, l.f, a.x2, next);
  }
}

void Model::backward_layers(const Group& group, const Activations& activations, float* dx) {
  if (bf16()) return backward_layers_bf16(group, activations, dx);
  const Layout& l = layout_;
  const int64_t rows = group.rows(), d = l.d, f = l.f, width = l.attention.width();
  const AttentionRows attended = {l.attention, group.sequences, group.length};
  const float* const p = state(COV_PARAMETERS);
  const Arena::Scope scope(device_.scratch());
  const auto take = [&](int64_t count) {
    return Rows{device_.scratch().take<float>(static_cast<uint64_t>(count)), nullptr};
  };
  const Rows hidden = take(rows * f), dgate_up = take(rows * 2 * f);
  const Rows dn = take(rows * d), dqkv = take(rows * width), dy = {dx, nullptr};
  float* const partials = take(rmsnorm_partials_size(rows, d)).f32;
  for (int64_t layer = l.layers - 1; layer >= 0; --layer) {
    const Activations::Layer& a = activations.layers[static_cast<size_t>(layer)];
    linear_input(dy, rows, l.down(layer), d, f, hidden);
    swiglu_backward(stream(), a.gate_up, hidden.f32, rows, f, hidden.f32, dgate_up.f32);
    linear_weight(dy, hidden, rows, l.down(layer), d, f);
    linear_input(dgate_up, rows, l.gate_up(layer), 2 * f, d, dn);
    linear_weight(dgate_up, a.n2, rows, l.gate_up(layer), 2 * f, d);
    rmsnorm_backward(stream(), a.x2, nullptr, p + l.norm2(layer), a.r2, dn, dx, rows, d, dx,
                     gradient(l.norm2(layer)), partials);
    linear_input(dy, rows, l.o(layer), d, d, dn);
    linear_weight(dy, a.attention_rows, rows, l.o(layer), d, d);
    attention_backward(device_, attended, a.qkv, a.attention, a.lse, dn.f32, dqkv.f32);
    rope(stream(), dqkv.f32, group.positions, cosine(), sine(), rows, width,
         l.attention.heads + l.attention.kv_heads, l.attention.dim, true);
    linear_input(dqkv, rows, l.qkv(layer), width, d, dn);
    linear_weight(dqkv, a.n1, rows, l.qkv(layer), width, d);
    rmsnorm_backward(stream(), a.x, nullptr, p + l.norm1(layer), a.r1, dn, dx, rows, d, dx,
                     gradient(l.norm1(layer)), partials);
  }
}

}  // namespace covenant::cuda
