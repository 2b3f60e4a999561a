// Attention over the cache: the same problem with keys that several heads share, with copies of them for each
// head, and with room for more positions takes other ways through the kernel, to the same bits. That these are
// the CPU's is shown by generation and replay.
#include "engine/cache.cuh"

#include <algorithm>
#include <cmath>
#include <vector>

#include "check.h"
#include "device_test.h"
#include "engine/buffers.h"
#include "engine/support.h"

namespace {

using namespace covenant::cuda;
using namespace covenant_test;

constexpr int64_t kHeads = 8, kSlots = 3;

struct Problem {
  int64_t dim, capacity;
  std::vector<int32_t> slots, positions;
  std::vector<float> queries;       // (rows, kHeads, dim)
  std::vector<float> keys, values;  // (slots, capacity, 2, dim): for every four heads
  Problem(int64_t dim_, const std::vector<int32_t>& at)
      : dim(dim_), capacity(0), positions(at) {
    for (size_t i = 0; i < at.size(); ++i) slots.push_back(static_cast<int32_t>(i * 2 % kSlots));
    for (const int32_t position : at) capacity = std::max<int64_t>(capacity, position + 1);
    Numbers numbers(static_cast<uint32_t>(dim));
    queries = numbers.floats(rows() * kHeads * dim, 2.0f);
    keys = numbers.floats(kSlots * capacity * 2 * dim, 2.0f);
    values = numbers.floats(kSlots * capacity * 2 * dim);
  }
  int64_t rows() const { return static_cast<int64_t>(positions.size()); }
};

// With kv_heads of keys and values, copies where these are more than two.
std::vector<float> attend(Device& device, const Problem& p, int64_t kv_heads, int64_t longest) {
  const int64_t dim = p.dim, half = kv_heads * dim;
  std::vector<float> cache(static_cast<size_t>(kSlots * p.capacity * 2 * half));
  for (int64_t place = 0; place < kSlots * p.capacity; ++place) {
    for (int64_t i = 0; i < half; ++i) {
      const int64_t from = (place * 2 + i / dim / (kv_heads / 2)) * dim + i % dim;
      cache[static_cast<size_t>(place * 2 * half + i)] = p.keys[static_cast<size_t>(from)];
      cache[static_cast<size_t>(place * 2 * half + half + i)] = p.values[static_cast<size_t>(from)];
    }
  }
  const int64_t width = kHeads * dim + 2 * half;
  std::vector<float> qkv(static_cast<size_t>(p.rows() * width), NAN);
  for (int64_t row = 0; row < p.rows(); ++row)
    std::copy_n(p.queries.begin() + row * kHeads * dim, kHeads * dim, qkv.begin() + row * width);
  const Buffer<float> on_cache = on_device(device, cache), rows = on_device(device, qkv);
  const Buffer<int32_t> slots = on_device(device, p.slots), positions = on_device(device, p.positions);
  const Buffer<float> out(device, p.queries.size());
  const CacheLayer layer = {{kHeads, kv_heads, dim}, on_cache.data(), p.capacity};
  attention_cached(device.stream(), layer, rows.data(), slots.data(), positions.data(), p.rows(), longest,
                   out.data());
  return from_device(device, out);
}

void check(Device& device, const Problem& p) {
  const std::vector<float> expected = attend(device, p, 2, p.capacity);
  for (const float x : expected) CHECK(std::isfinite(x) && std::fabs(x) <= 1.0001f);
  const size_t bytes = expected.size() * sizeof(float);
  for (const int64_t kv_heads : {2, 4, 8}) {
    // Room for four, two and one head, and without tiles.
    for (const int64_t longest : {p.capacity, int64_t{6000}, int64_t{12000}, kCachePositionsMax})
      CHECK_SAME(attend(device, p, kv_heads, longest).data(), expected.data(), bytes);
  }
}

}  // namespace

int main() {
  if (!have_device()) return kSkipped;
  Device device(0, 0);
  check(device, {6, {0, 31, 32, 33}});
  check(device, {40, {0, 1, 63, 127, 128, 150}});
  if (!kSanitized) check(device, {64, {199, 3}});
  check(device, {65, {34}});
  TEST_MAIN_END("cuda cache");
}
