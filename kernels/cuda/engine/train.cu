// Batches, the head, and the training calls (src/engine/train.cc, src/engine/head.cc).
#include <algorithm>
#include <cmath>

#include "engine/embedding.cuh"
#include "engine/groups.h"
#include "engine/head.h"
#include "engine/head.cuh"
#include "engine/lora.cuh"
#include "engine/math.cuh"
#include "engine/model.cuh"
#include "engine/optimizer.h"
#include "engine/rmsnorm.cuh"
#include "engine/top.cuh"

namespace covenant::cuda {
namespace {

// In fp32 batches are cut as on the CPU (groups.h), in bf16 into parts large enough for a GPU.
constexpr int64_t kGroupRowsBf16 = 16384;
constexpr int64_t kLogitsBf16 = int64_t{1} << 28;

}  // namespace

void make_group(Device& device, const cov_batch& batch, int64_t first, int64_t count, Group& group) {
  group.sequences = count;
  group.length = batch.sequence_length;
  const int64_t rows = group.rows(), start = first * group.length;
  const TokenBuckets buckets(batch.tokens + start, rows);
  std::vector<int32_t> scored, targets, positions;
  for (int64_t row = 0; row < rows; ++row) {
    positions.push_back(static_cast<int32_t>(row % group.length));
    if (batch.targets[start + row] < 0) continue;
    scored.push_back(static_cast<int32_t>(row));
    targets.push_back(batch.targets[start + row]);
    group.places.push_back(start + row);
  }
  group.scored = static_cast<int64_t>(scored.size());
  group.buckets = static_cast<int64_t>(buckets.tokens.size());
  std::vector<size_t> at;
  const auto add = [&](const int32_t* values, size_t length) {
    at.push_back(group.host.size());
    group.host.insert(group.host.end(), values, values + length);
  };
  add(batch.tokens + start, static_cast<size_t>(rows));
  const std::vector<int32_t>* const lists[] = {&positions,      &scored,         &targets,
                                               &buckets.tokens, &buckets.starts, &buckets.rows};
  for (const std::vector<int32_t>* const list : lists) add(list->data(), list->size());
  group.data = Buffer<int32_t>(device, group.host.size());
  device.upload(group.data.data(), group.host.data(), group.host.size() * sizeof(int32_t));
  const int32_t** const parts[] = {&group.tokens,        &group.positions,     &group.scored_rows,
                                   &group.targets,       &group.bucket_tokens, &group.bucket_starts,
                                   &group.bucket_rows};
  for (size_t i = 0; i < at.size(); ++i) *parts[i] = group.data.data() + at[i];
}

int64_t Model::group_sequences(int64_t length) const {
  return std::max<int64_t>(1, (bf16() ? kGroupRowsBf16 : kGroupRows) / length);
}

int64_t Model::head_rows() const {
  if (bf16()) return std::clamp<int64_t>(kLogitsBf16 / layout_.vocab / 128 * 128, 128, 16384);
  return head_chunk_rows(layout_.vocab);
}

void Model::clear_non_finite() { device_.fill_zero(non_finite_.data(), sizeof(int32_t)); }

void Model::check_finite() {
  int32_t found = 0;
  device_.download(&found, non_finite_.data(), sizeof found);
  device_.finish();
  if (found != 0) raise(COV_NON_FINITE, "the logits are not finite");
}

void Model::head(const Group& group, const Activations& activations, float inverse_temperature,
                 const HeadResults& results, bool backward, const float* coefficients,
                 float constant, float* dx) {
  const Layout& l = layout_;
  const int64_t chunk = std::min(head_rows(), group.scored);
  const float* const gain = state(COV_PARAMETERS) + l.final_norm;
  const Arena::Scope scope(device_.scratch());
  const auto take = [&](int64_t count) {
    return device_.scratch().take<float>(static_cast<uint64_t>(count));
  };
  const auto take16 = [&](int64_t count) {
    return device_.scratch().take<uint16_t>(static_cast<uint64_t>(count));
  };
  float* const logits = take(chunk * l.vocab);
  float* const r = take(chunk);
  const bool tops = results.top_count > 0 && !backward;
  double* const log_sums =
      tops ? device_.scratch().take<double>(static_cast<uint64_t>(chunk)) : nullptr;
  const Rows normed =
      bf16() ? Rows{nullptr, take16(chunk * l.d)} : Rows{take(chunk * l.d), nullptr};
  const Rows dlogits =
      bf16() ? Rows{nullptr, backward ? take16(chunk * l.vocab) : nullptr} : Rows{logits, nullptr};
  Rows dnormed;
  if (backward) dnormed = bf16() ? Rows{nullptr, take16(chunk * l.d)} : Rows{take(chunk * l.d), nullptr};
  float* const partials = backward ? take(rmsnorm_partials_size(chunk, l.d)) : nullptr;
  for (int64_t first = 0; first < group.scored; first += chunk) {
    const int64_t rows = std::min(chunk, group.scored - first);
    const int32_t* const index = group.scored_rows + first;
    rmsnorm(stream(), activations.last, index, gain, eps(), rows, l.d, normed, r);
    linear(normed, rows, l.head, l.vocab, l.d, nullptr, logits);
    const HeadRows h = {rows,
                        l.vocab,
                        group.targets + first,
                        inverse_temperature,
                        results.log_probs + first,
                        results.entropy + first,
                        non_finite_.data(),
                        log_sums};
    if (!backward) {
      score_logits(stream(), h, logits);
      const int64_t at = first * results.top_count;
      if (tops)
        top_tokens(stream(),
                   {rows, l.vocab, results.top_count, inverse_temperature, log_sums,
                    results.top_tokens + at, results.top_log_probs + at},
                   logits);
      continue;
    }
    score_logits_backward(stream(), h, logits, dlogits.bf16,
                          coefficients == nullptr ? nullptr : coefficients + first, constant);
    linear_input(dlogits, rows, l.head, l.vocab, l.d, dnormed);
    linear_weight(dlogits, normed, rows, l.head, l.vocab, l.d);
    rmsnorm_backward(stream(), activations.last, index, gain, r, dnormed, nullptr, rows, l.d, dx,
                     gradient(l.final_norm), partials);
  }
}

void Model::forward(const cov_batch& batch, const cov_forward_options& options,
                    const cov_forward_output& output) {
  drop_kept();
  const int64_t length = batch.sequence_length, count = batch.sequences * length;
  const int64_t each = group_sequences(length);
  const float inverse = 1.0f / (options.temperature == 0.0f ? 1.0f : options.temperature);
  prepare(length);
  clear_non_finite();
  clear_forward_output(count, options.top_count, output);
  try {
    for (int64_t first = 0; first < batch.sequences; first += each) {
      KeptGroup one;
      make_group(device_, batch, first, std::min<int64_t>(each, batch.sequences - first), one.group);
      Activations& activations = options.keep_activations ? one.activations : activations_;
      activations.reserve(device_, layout_, one.group.rows(), !options.keep_activations);
      embed(stream(), state(COV_PARAMETERS), one.group.tokens, one.group.rows(), layout_.d,
            activations.layers[0].x);
      forward_layers(one.group, activations);
      const auto scored = static_cast<uint64_t>(one.group.scored);
      scores_.reserve(device_, scored, options.top_count);
      head(one.group, activations, inverse, scores_.from(0), false, nullptr, 0.0f, nullptr);
      scores_.download(device_, scored);
      check_finite();
      scores_.place(0, one.group.places, output);
      if (options.keep_activations) kept_.push_back(std::move(one));
    }
  } catch (...) {
    drop_kept();
    throw;
  }
  kept_positions_ = static_cast<uint64_t>(count);
  kept_inverse_temperature_ = inverse;
}

void Model::backward_group(const Group& group, const Activations& activations,
                           float inverse_temperature, const float* coefficients, float constant,
                           float* log_probs) {
  const Arena::Scope scope(device_.scratch());
  const uint64_t size = static_cast<uint64_t>(group.rows() * layout_.d);
  const uint64_t scored = static_cast<uint64_t>(group.scored);
  float* const dx = device_.scratch().take<float>(size);
  float* const device_log_probs = device_.scratch().take<float>(scored);
  float* const entropy = device_.scratch().take<float>(scored);
  float* device_coefficients = nullptr;
  std::vector<float> values(scored);
  if (coefficients != nullptr) {
    for (size_t i = 0; i < scored; ++i) values[i] = coefficients[group.places[i]];
    device_coefficients = device_.scratch().take<float>(scored);
    device_.upload(device_coefficients, values.data(), scored * sizeof(float));
  }
  device_.fill_zero(dx, size * sizeof(float));
  head(group, activations, inverse_temperature, {device_log_probs, entropy}, true,
       device_coefficients, constant, dx);
  backward_layers(group, activations, dx);
  if (float* const g = gradient(0); g != nullptr)
    embed_backward(stream(), dx, group.bucket_tokens, group.bucket_starts, group.bucket_rows,
                   group.buckets, layout_.d, g);
  device_.download(values.data(), device_log_probs, scored * sizeof(float));
  check_finite();
  if (log_probs == nullptr) return;
  for (size_t i = 0; i < scored; ++i) log_probs[group.places[i]] = values[i];
}

void Model::backward(const float* coefficients, uint64_t count) {
  if (kept_.empty())
    raise(COV_FAILED_PRECONDITION, "backward needs a forward with keep_activations");
  if (count != kept_positions_)
    raise(COV_INVALID_ARGUMENT, "%llu coefficients given, the kept forward has %llu",
          static_cast<unsigned long long>(count), static_cast<unsigned long long>(kept_positions_));
  require_trainable();
  const std::vector<KeptGroup> groups = std::move(kept_);
  kept_.clear();
  prepare(0);
  for (const KeptGroup& one : groups)
    backward_group(one.group, one.activations, kept_inverse_temperature_, coefficients, 0.0f,
                   nullptr);
}

void Model::apply_gradients(const cov_adamw_options& options, double norm) {
  parameters_.apply_gradients(options, norm, shadow_.data());
  shadow_fresh_ = true;
}

double Model::optimizer_step(const cov_adamw_options& options) {
  require_no_lora();
  drop_kept();
  parameters_.prepare_step();
  const double norm = parameters_.gradient_norm();
  apply_gradients(options, norm);
  device_.finish();
  return norm;
}

void Model::train_step(const cov_batch& batch, const cov_adamw_options& options, double* loss,
                       double* norm) {
  drop_kept();
  const int64_t length = batch.sequence_length, count = batch.sequences * length;
  const int64_t each = group_sequences(length);
  const int64_t scored = std::count_if(batch.targets, batch.targets + count,
                                       [](int32_t target) { return target >= 0; });
  if (scored == 0) raise(COV_INVALID_ARGUMENT, "no position of the batch is scored");
  require_trainable();
  trained().prepare_step();
  prepare(length);
  clear_non_finite();
  std::vector<float> log_probs(static_cast<size_t>(count), 0.0f);
  const float coefficient = static_cast<float>(-1.0 / static_cast<double>(scored));
  try {
    for (int64_t first = 0; first < batch.sequences; first += each) {
      Group group;
      make_group(device_, batch, first, std::min<int64_t>(each, batch.sequences - first), group);
      activations_.reserve(device_, layout_, group.rows(), false);
      embed(stream(), state(COV_PARAMETERS), group.tokens, group.rows(), layout_.d,
            activations_.layers[0].x);
      forward_layers(group, activations_);
      backward_group(group, activations_, 1.0f, nullptr, coefficient, log_probs.data());
    }
    *norm = lora_ != nullptr ? lora_->optimizer_step(options) : optimizer_step(options);
  } catch (...) {
    trained().clear_gradients();  // a half-finished sum is of no use to anyone
    device_.finish();
    throw;
  }
  double sum = 0.0;
  for (const float log_prob : log_probs) sum -= static_cast<double>(log_prob);
  *loss = sum / static_cast<double>(scored);
}

}  // namespace covenant::cuda
