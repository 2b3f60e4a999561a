#include "engine/pages.cuh"

#include <algorithm>

namespace covenant::cuda {
namespace {

constexpr uint64_t kChunkBytes = 32 << 20;
constexpr int64_t kFirstPages = 8;

}  // namespace

uint64_t DevicePages::page_bytes() const {
  return static_cast<uint64_t>(layers_ * layer_elements()) * (bf16_ ? sizeof(uint16_t) : sizeof(float));
}

int64_t DevicePages::growth(int64_t pages) const {
  const auto most = static_cast<int64_t>(kChunkBytes / page_bytes());
  return std::clamp(std::max(pages, kFirstPages), int64_t{1}, std::max<int64_t>(most, 1));
}

void DevicePages::reserve(int64_t pages) {
  const auto have = static_cast<int64_t>(addresses_.size());
  if (pages <= have) return;
  addresses_.reserve(static_cast<size_t>(pages));
  chunks_.reserve(chunks_.size() + 1);
  chunks_.emplace_back(device_, static_cast<uint64_t>(pages - have) * page_bytes());
  for (int64_t i = 0; i < pages - have; ++i)
    addresses_.push_back(chunks_.back().data() + static_cast<uint64_t>(i) * page_bytes());
}

void DevicePages::copy(int32_t to, int32_t from) { device_.copy(data(to), data(from), page_bytes()); }

}  // namespace covenant::cuda
