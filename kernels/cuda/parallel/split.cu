#include "parallel/split.h"

#include <algorithm>

namespace covenant::cuda {
namespace {

// Layers of the last stage, so that the slowest stage is as fast as it can be; each stage gets one or more.
int64_t last_layers(const Layout& l, int64_t stages) {
  const int64_t head = l.vocab * l.d;
  int64_t best = 1, least = INT64_MAX;
  for (int64_t last = 1; last <= l.layers - (stages - 1); ++last) {
    const int64_t others = (l.layers - last + stages - 2) / (stages - 1);
    const int64_t slowest = std::max(others * l.layer_size, last * l.layer_size + head);
    if (slowest < least) {
      least = slowest;
      best = last;
    }
  }
  return best;
}

// Adds a part to the slice and gives its local place.
uint64_t add_part(Slice& slice, uint64_t global, uint64_t count) {
  constexpr uint64_t kChunk = kAdamwChunk;
  const uint64_t local = (slice.count + kChunk - 1) / kChunk * kChunk + global % kChunk;
  slice.parts.push_back({global, local, count});
  slice.count = local + count;
  return local;
}

}  // namespace

std::vector<Slice> split(const cov_model_shape& shape, Compute compute, int64_t stages) {
  const Layout whole(shape, compute);
  if (stages == 1) return {Slice::whole(shape, compute)};
  const bool tied = whole.head == 0;
  const uint64_t end = cov_parameter_count(&shape);
  const uint64_t embedding = static_cast<uint64_t>(whole.first_layer);
  const int64_t last = last_layers(whole, stages), rest = whole.layers - last;
  std::vector<Slice> slices;
  for (int64_t stage = 0; stage < stages; ++stage) {
    const bool is_last = stage + 1 == stages;
    const int64_t first = rest * stage / (stages - 1);
    const int64_t after = is_last ? whole.layers : rest * (stage + 1) / (stages - 1);
    Slice slice{{}, whole, 0, first};
    Layout& l = slice.layout;
    l.layers = after - first;
    if (is_last && tied) add_part(slice, 0, embedding);
    const bool embeds = stage == 0 && !tied;
    const uint64_t from = embeds ? 0 : static_cast<uint64_t>(whole.qkv(first));
    const uint64_t to = is_last ? end : static_cast<uint64_t>(whole.qkv(after));
    const int64_t shift = static_cast<int64_t>(add_part(slice, from, to - from)) -
                          static_cast<int64_t>(from);
    l.first_layer = whole.qkv(first) + shift;
    l.final_norm = whole.final_norm + shift;
    if (!tied) l.head = whole.head + shift;
    slices.push_back(std::move(slice));
  }
  return slices;
}

std::vector<Slice::Part> overlap(const std::vector<Slice::Part>& parts, uint64_t first, uint64_t count) {
  std::vector<Slice::Part> found;
  for (const Slice::Part& part : parts) {
    const uint64_t from = std::max(first, part.global);
    const uint64_t to = std::min(first + count, part.global + part.count);
    if (from < to) found.push_back({from, part.local + (from - part.global), to - from});
  }
  return found;
}

}  // namespace covenant::cuda
