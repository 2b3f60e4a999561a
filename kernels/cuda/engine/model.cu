// Life of a model: parameters, rotary table, products with weights.
#include "engine/model.cuh"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "engine/lora.cuh"
#include "engine/math.cuh"

namespace covenant::cuda {

namespace {

// Parts of one tensor each.
std::vector<AdamwRange> ranges(const cov_model_shape& shape, const Slice& slice) {
  std::vector<cov_tensor_info> tensors(static_cast<size_t>(cov_tensor_count(&shape)));
  require(cov_tensor_table(&shape, tensors.data(), static_cast<int32_t>(tensors.size())));
  std::vector<AdamwRange> found;
  for (const Slice::Part& part : slice.parts) {
    for (const cov_tensor_info& tensor : tensors) {
      if (tensor.offset < part.global || tensor.offset >= part.global + part.count) continue;
      const uint64_t start = part.local + (tensor.offset - part.global);
      for (uint64_t i = 0; i < tensor.length; i += kAdamwChunk)
        found.push_back({static_cast<int64_t>(start + i),
                         static_cast<int32_t>(std::min<uint64_t>(kAdamwChunk, tensor.length - i)),
                         tensor.rank == 2});
    }
  }
  return found;
}

bool graphs_wanted() {
  const char* const wanted = std::getenv("COVENANT_CUDA_GRAPHS");
  return wanted == nullptr || std::strcmp(wanted, "0") != 0;
}

}  // namespace

Model::Model(Device& device, const cov_model_shape& shape, Slice slice)
    : graphs(graphs_wanted()),
      device_(device),
      shape_(shape),
      slice_(std::move(slice)),
      parameters_(device, slice_.count, ranges(shape, slice_)) {
  non_finite_ = Buffer<int32_t>(device, 1);
  if (bf16()) shadow_ = Buffer<uint16_t>(device, slice_.count);
}

Model::~Model() {
  (void)guard([&] {
    device_.activate();
    device_.finish();
  });
}

void Model::write(cov_buffer which, uint64_t offset, uint64_t count, const float* values) {
  parameters_.write(which, offset, count, values);
  if (which == COV_PARAMETERS) touch();
}

Parameters& Model::trained() { return lora_ != nullptr ? lora_->parameters() : parameters_; }

void Model::touch() {
  shadow_fresh_ = false;
  if (lora_ != nullptr) lora_->touch();
}

void Model::use_lora(Lora* lora) {
  if (lora == lora_) return;
  drop_kept();
  lora_ = lora;
  touch();
}

void Model::require_trainable() const {
  if (lora_ != nullptr) lora_->require_unmerged();
}

void Model::require_no_lora() const {
  if (lora_ != nullptr)
    raise(COV_FAILED_PRECONDITION, "adapters are in use and the base is frozen; step the adapters");
}

const float* Model::matrix(int64_t offset) {
  const float* const adapted =
      lora_ != nullptr && !lora_->merged() ? lora_->matrix(offset) : nullptr;
  return adapted != nullptr ? adapted : state(COV_PARAMETERS) + offset;
}

void Model::prepare(int64_t length) {
  if (bf16() && !shadow_fresh_) {
    to_bf16(stream(), state(COV_PARAMETERS), static_cast<int64_t>(slice_.count), shadow_.data());
    if (lora_ != nullptr) lora_->touch();
    shadow_fresh_ = true;
  }
  if (lora_ != nullptr && !lora_->merged()) lora_->compose(shadow_.data());
  prepare_rope(length);
}

void Model::prepare_rope(int64_t length) {
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
                   const float* residual, float* out) {
  if (bf16())
    train_product({rows, n, k, {x.bf16, k, true}, {rounded_matrix(offset), k, true}, residual, out});
  else
    multiply(stream(), Product{rows, n, k, x.f32, k, 1, matrix(offset), 1, k, residual, out, n});
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
             Product{rows, k, n, dy.f32, n, 1, matrix(offset), k, 1, nullptr, out.f32, k});
}

void Model::linear_weight(Rows dy, Rows x, int64_t rows, int64_t offset, int64_t n, int64_t k) {
  if (lora_ != nullptr) return lora_->gradient(offset, dy, x, rows);
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
