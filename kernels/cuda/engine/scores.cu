#include "engine/scores.cuh"

#include <algorithm>

namespace covenant::cuda {
namespace {

template <typename T>
void grow(Device& device, Buffer<T>& buffer, uint64_t count) {
  if (buffer.count() >= count) return;
  buffer = Buffer<T>();
  buffer = Buffer<T>(device, count);
}

template <typename T>
void fetch(Device& device, const Buffer<T>& buffer, uint64_t count, std::vector<T>& values) {
  values.resize(count);
  device.download(values.data(), buffer.data(), count * sizeof(T));
}

// Row `row` of `width` values to row `place` of the caller's, who may not want them.
template <typename T>
void put(const std::vector<T>& values, uint64_t row, uint64_t width, int64_t place, T* to) {
  if (to != nullptr)
    std::copy_n(values.data() + row * width, width, to + static_cast<uint64_t>(place) * width);
}

}  // namespace

void Scores::reserve(Device& device, uint64_t rows, int32_t top_count) {
  top_count_ = top_count;
  const uint64_t tops = rows * static_cast<uint64_t>(top_count);
  grow(device, log_probs_, rows);
  grow(device, entropy_, rows);
  grow(device, top_tokens_, tops);
  grow(device, top_log_probs_, tops);
}

HeadResults Scores::from(uint64_t row) const {
  const uint64_t tops = row * static_cast<uint64_t>(top_count_);
  return {log_probs_.data() + row, entropy_.data() + row, top_count_, top_tokens_.data() + tops,
          top_log_probs_.data() + tops};
}

void Scores::download(Device& device, uint64_t rows) {
  const uint64_t tops = rows * static_cast<uint64_t>(top_count_);
  fetch(device, log_probs_, rows, host_log_probs_);
  fetch(device, entropy_, rows, host_entropy_);
  fetch(device, top_tokens_, tops, host_top_tokens_);
  fetch(device, top_log_probs_, tops, host_top_log_probs_);
  device.finish();
}

void Scores::place(uint64_t first, const std::vector<int64_t>& places,
                   const cov_forward_output& output) const {
  const auto tops = static_cast<uint64_t>(top_count_);
  for (size_t i = 0; i < places.size(); ++i) {
    put(host_log_probs_, first + i, 1, places[i], output.log_probs);
    put(host_entropy_, first + i, 1, places[i], output.entropy);
    put(host_top_tokens_, first + i, tops, places[i], output.top_tokens);
    put(host_top_log_probs_, first + i, tops, places[i], output.top_log_probs);
  }
}

}  // namespace covenant::cuda
