// Life of a model: parameters, rotary table, products with weights.
#include "engine/model.cuh"

#include <cmath>
#include <cstring>

#include "engine/math.cuh"

namespace covenant::cuda {

Model::Model(Device& device, const cov_model_shape& shape, Slice slice)
    : device_(device), shape_(shape), slice_(std::move(slice)) {
  state(COV_PARAMETERS);
  non_finite_ = Buffer<int32_t>(device, 1);
  if (bf16()) shadow_ = Buffer<uint16_t>(device, count_);
}

float* Model::state(cov_buffer which) {
  Buffer<float>& buffer = states_[which];
  if (buffer.data() == nullptr) {
    buffer = Buffer<float>(device_, count_);
    device_.fill_zero(buffer.data(), count_ * sizeof(float));
  }
  return buffer.data();
}

void Model::read(cov_buffer which, uint64_t offset, uint64_t count, float* values) {
  device_.download(values, state(which) + offset, count * sizeof(float));
  device_.finish();
}

void Model::write(cov_buffer which, uint64_t offset, uint64_t count, const float* values) {
  device_.upload(state(which) + offset, values, count * sizeof(float));
  device_.finish();
  if (which == COV_PARAMETERS) touch();
}

void Model::clear_gradients() {
  if (states_[COV_GRADIENTS].data() != nullptr)
    device_.fill_zero(states_[COV_GRADIENTS].data(), count_ * sizeof(float));
}

void Model::prepare(int64_t length) {
  if (bf16() && !shadow_fresh_) {
    to_bf16(stream(), state(COV_PARAMETERS), static_cast<int64_t>(count_), shadow_.data());
    shadow_fresh_ = true;
  }
  if (length <= rope_length_) return;
  const int64_t half = layout_.attention.dim / 2;
  // Computed here as the CPU engine does it, so that both have the same table.
  std::vector<float> cosine(static_cast<size_t>(length * half)), sine(cosine.size());
  for (int64_t i = 0; i < half; ++i) {
    const double exponent = static_cast<double>(2 * i) / static_cast<double>(2 * half);
    const float frequency = 1.0f / static_cast<float>(std::pow(shape_.rope_theta, exponent));
    for (int64_t position = 0; position < length; ++position) {
      const double angle = static_cast<double>(static_cast<float>(position) * frequency);
      cosine[static_cast<size_t>(position * half + i)] = static_cast<float>(std::cos(angle));
      sine[static_cast<size_t>(position * half + i)] = static_cast<float>(std::sin(angle));
    }
  }
  device_.finish();  // the old table may still be read
  rope_length_ = 0;
  cosine_ = Buffer<float>();
  sine_ = Buffer<float>();
  cosine_ = Buffer<float>(device_, cosine.size());
  sine_ = Buffer<float>(device_, sine.size());
  device_.upload(cosine_.data(), cosine.data(), cosine.size() * sizeof(float));
  device_.upload(sine_.data(), sine.data(), sine.size() * sizeof(float));
  device_.finish();
  rope_length_ = length;
}

void Model::linear(Rows x, int64_t rows, int64_t offset, int64_t n, int64_t k,
                   const float* residual, float* out, bool training) {
  if (!bf16())
    return multiply(stream(), Product{rows, n, k, x.f32, k, 1, state(COV_PARAMETERS) + offset, 1, k,
                                      residual, out, n});
  const ProductBf16 product = {rows, n, k, {x.bf16, k, true}, {shadow_.data() + offset, k, true},
                               residual, out};
  if (training)
    train_product(product);
  else
    multiply(stream(), product);
}

void Model::train_product(const ProductBf16& product) {
  if (vendor_ != nullptr)
    vendor_->multiply(product);
  else
    multiply(stream(), product);
}

void Model::linear_input(Rows dy, int64_t rows, int64_t offset, int64_t n, int64_t k, Rows out) {
  if (bf16())
    train_product({rows, k, n, {dy.bf16, n, true}, {shadow_.data() + offset, k, false}, nullptr, nullptr,
                   out.bf16});
  else
    multiply(stream(),
             Product{rows, k, n, dy.f32, n, 1, state(COV_PARAMETERS) + offset, k, 1, nullptr, out.f32, k});
}

void Model::linear_weight(Rows dy, Rows x, int64_t rows, int64_t offset, int64_t n, int64_t k) {
  float* const g = state(COV_GRADIENTS) + offset;
  if (bf16())
    train_product({n, k, rows, {dy.bf16, n, false}, {x.bf16, k, false}, g, g});
  else
    multiply(stream(), Product{n, k, rows, dy.f32, 1, n, x.f32, k, 1, g, g, k});
}

void Model::linear_bf16(const uint16_t* x, int64_t rows, int64_t offset, int64_t n, int64_t k,
                        uint16_t* out, uint16_t* hidden) {
  train_product({rows, n, k, {x, k, true}, {shadow_.data() + offset, k, true}, nullptr, nullptr, out,
                 hidden});
}

Rows Model::operand(float* x, int64_t count, uint16_t* rounded) {
  if (!bf16()) return {x, nullptr};
  to_bf16(stream(), x, count, rounded);
  return {nullptr, rounded};
}

}  // namespace covenant::cuda
