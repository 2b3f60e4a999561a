#include "engine/parameters.cuh"

#include <cmath>

#include "engine/optimizer.h"

namespace covenant::cuda {

Parameters::Parameters(Device& device, uint64_t count, std::vector<AdamwRange> ranges)
    : device_(device), count_(count), host_ranges_(std::move(ranges)) {
  state(COV_PARAMETERS);
}

uint64_t Parameters::memory_bytes() const {
  uint64_t bytes = ranges_.bytes();
  for (const Buffer<float>& buffer : states_) bytes += buffer.bytes();
  return bytes;
}

float* Parameters::state(cov_buffer which) {
  Buffer<float>& buffer = states_[which];
  if (buffer.data() == nullptr) {
    buffer = Buffer<float>(device_, count_);
    device_.fill_zero(buffer.data(), count_ * sizeof(float));
  }
  return buffer.data();
}

void Parameters::read(cov_buffer which, uint64_t offset, uint64_t count, float* values) {
  device_.download(values, state(which) + offset, count * sizeof(float));
  device_.finish();
}

void Parameters::write(cov_buffer which, uint64_t offset, uint64_t count, const float* values) {
  device_.upload(state(which) + offset, values, count * sizeof(float));
  device_.finish();
}

void Parameters::clear_gradients() {
  if (states_[COV_GRADIENTS].data() != nullptr)
    device_.fill_zero(states_[COV_GRADIENTS].data(), count_ * sizeof(float));
}

void Parameters::prepare_step() {
  for (cov_buffer which : {COV_GRADIENTS, COV_FIRST_MOMENT, COV_SECOND_MOMENT}) state(which);
  if (ranges_.data() != nullptr) return;
  Buffer<AdamwRange> made(device_, host_ranges_.size());
  device_.upload(made.data(), host_ranges_.data(), host_ranges_.size() * sizeof(AdamwRange));
  device_.finish();
  ranges_ = std::move(made);
}

std::vector<double> Parameters::gradient_sums() {
  const Arena::Scope scope(device_.scratch());
  std::vector<double> sums((count_ + kAdamwChunk - 1) / kAdamwChunk);
  double* const device_sums = device_.scratch().take<double>(sums.size());
  square_sums(device_.stream(), state(COV_GRADIENTS), static_cast<int64_t>(count_), device_sums);
  device_.download(sums.data(), device_sums, sums.size() * sizeof(double));
  device_.finish();
  return sums;
}

double Parameters::gradient_norm() {
  double total = 0.0;
  for (const double sum : gradient_sums()) total += sum;
  const double norm = std::sqrt(total);
  if (std::isfinite(norm)) return norm;
  clear_gradients();
  device_.finish();
  raise(COV_NON_FINITE, "the gradient norm is not finite; no step was made");
}

void Parameters::apply_gradients(const cov_adamw_options& options, double norm, uint16_t* shadow) {
  adamw(device_.stream(), ranges_.data(), static_cast<int64_t>(ranges_.count()),
        state(COV_PARAMETERS), state(COV_GRADIENTS), state(COV_FIRST_MOMENT),
        state(COV_SECOND_MOMENT), shadow, adamw_scalars(options, step_count + 1, norm));
  ++step_count;
}

}  // namespace covenant::cuda
