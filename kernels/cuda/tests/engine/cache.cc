// Attention over pages: the bits of the CPU's kernels for pages of both types, whatever the number of heads that
// share keys, and whichever way there is room for; and nobody reads beyond a row's own position.
#include "engine/cache.cuh"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "check.h"
#include "device_test.h"
#include "engine/buffers.h"
#include "engine/support.h"
#include "generate/kernels.h"
#include "generate/weights.h"

namespace {

using namespace covenant::cuda;
using namespace covenant_test;
using covenant::AttentionLane;
using covenant::AttentionShape;
using covenant::kPagePositions;

constexpr int64_t kLayers = 2;

int64_t pages_for(int64_t positions) { return (positions + kPagePositions - 1) / kPagePositions; }

// Sequences in pages: (q | k | v) of every position, of which the last one's queries are of interest.
struct Problem {
  AttentionShape shape;
  bool bf16;
  std::vector<int64_t> lengths;
  std::vector<std::vector<float>> sequences;  // (length, width)
  Problem(const AttentionShape& of, bool type, const std::vector<int64_t>& of_length)
      : shape(of), bf16(type), lengths(of_length) {
    Numbers numbers(static_cast<uint32_t>(of.dim));
    for (const int64_t length : lengths) {
      sequences.push_back(numbers.floats(length * of.width(), 2.0f));
      sequences.back()[static_cast<size_t>((of.heads + of.kv_heads) * of.dim)] = 1e-39f;  // a subnormal value
    }
  }
};

// The last row of each sequence, from the CPU's kernels.
template <typename T>
std::vector<float> on_cpu(const Problem& p) {
  const covenant::GenerationKernels& kernel = *covenant::generation_kernels_portable();
  const AttentionShape& shape = p.shape;
  const int64_t dim = shape.dim, padded = shape.padded_dim(), page_size = kPagePositions * (dim + padded);
  const int type = p.bf16 ? 1 : 0;
  std::vector<float> out;
  for (size_t s = 0; s < p.sequences.size(); ++s) {
    const int64_t length = p.lengths[s], pages = pages_for(length);
    std::vector<T> memory(static_cast<size_t>(pages * page_size));
    std::vector<const void*> addresses;
    for (int64_t i = 0; i < pages; ++i) addresses.push_back(memory.data() + i * page_size);
    std::vector<float> scores(static_cast<size_t>(pages * kPagePositions));
    for (int64_t head = 0; head < shape.heads; ++head) {
      const float* const kv = p.sequences[s].data() + (shape.heads + head / shape.group()) * dim;
      for (int64_t t = 0; t < length; ++t) {
        T* const page = memory.data() + t / kPagePositions * page_size;
        for (int64_t i = 0; i < dim; ++i) {
          const auto put = [&](int64_t at, float x) {
            if constexpr (sizeof(T) == 2)
              page[at] = covenant::bf16_of(x);
            else
              page[at] = x;
          };
          const float* const row = kv + t * shape.width();
          put(i * kPagePositions + t % kPagePositions, row[i]);
          put(kPagePositions * dim + t % kPagePositions * padded + i, row[shape.kv_heads * dim + i]);
        }
      }
      const float* const q = p.sequences[s].data() + (length - 1) * shape.width() + head * dim;
      kernel.scores[type](1, dim, q, 0, addresses.data(), 0, pages, scores.data(), pages * kPagePositions);
      kernel.softmax(scores.data(), 1.0f / std::sqrt(static_cast<float>(dim)), length, length);
      std::vector<float> row(static_cast<size_t>(dim));
      const AttentionLane lane = {scores.data(), kPagePositions * dim, row.data()};
      kernel.weighted[type](&lane, 1, addresses.data(), length, dim, padded);
      out.insert(out.end(), row.begin(), row.end());
    }
  }
  return out;
}

// Rows of all sequences appended to pages that lie in no order and are full of NaN, then attention of the last ones.
std::vector<float> on_gpu(Device& device, const Problem& p, int64_t longest) {
  const AttentionShape& shape = p.shape;
  DevicePages pages(device, shape, kLayers, p.bf16);
  int64_t all = 0;
  for (const int64_t length : p.lengths) all += pages_for(length);
  for (int64_t i = 1; i <= all; ++i) pages.reserve(i);
  for (int64_t i = 0; i < all; ++i) device.fill_ones(pages.data(static_cast<int32_t>(i)), pages.page_bytes());
  std::vector<void*> table;
  std::vector<int32_t> first, positions, last_first, last_positions;
  std::vector<float> rows, queries;
  for (size_t s = 0; s < p.lengths.size(); ++s) {
    const auto begin = static_cast<int32_t>(table.size());
    for (int64_t i = 0; i < pages_for(p.lengths[s]); ++i)
      table.push_back(pages.data(static_cast<int32_t>(all - 1 - static_cast<int64_t>(table.size()))));
    for (int32_t t = 0; t < p.lengths[s]; ++t) {
      first.push_back(begin);
      positions.push_back(t);
    }
    last_first.push_back(begin);
    last_positions.push_back(static_cast<int32_t>(p.lengths[s]) - 1);
    rows.insert(rows.end(), p.sequences[s].begin(), p.sequences[s].end());
    queries.insert(queries.end(), p.sequences[s].end() - shape.width(), p.sequences[s].end());
  }
  const Buffer<void*> tables = on_device(device, table);
  const Buffer<int32_t> firsts = on_device(device, first), at = on_device(device, positions);
  const Buffer<int32_t> last_firsts = on_device(device, last_first), last_at = on_device(device, last_positions);
  const Buffer<float> qkv = on_device(device, rows), last_qkv = on_device(device, queries);
  const auto count = static_cast<int64_t>(p.lengths.size());
  const Buffer<float> out(device, static_cast<uint64_t>(count * shape.query_width()));
  const PagedRows written = {shape, p.bf16, pages.layer_elements(), tables.data(), firsts.data(), at.data(),
                             static_cast<int64_t>(first.size())};
  cache_append(device.stream(), written, qkv.data());
  const PagedRows read = {shape, p.bf16, pages.layer_elements(), tables.data(), last_firsts.data(), last_at.data(),
                          count};
  attention_cached(device.stream(), read, last_qkv.data(), longest, out.data());
  return from_device(device, out);
}

void check(Device& device, const AttentionShape& shape, const std::vector<int64_t>& lengths) {
  for (const bool bf16 : {false, true}) {
    const Problem p(shape, bf16, lengths);
    const std::vector<float> expected = bf16 ? on_cpu<uint16_t>(p) : on_cpu<float>(p);
    // Room for four heads, for two and for one.
    for (const int64_t longest :
         {*std::max_element(lengths.begin(), lengths.end()), int64_t{6200}, int64_t{12400}, kCachePositionsMax}) {
      const std::vector<float> found = on_gpu(device, p, longest);
      CHECK_SAME(found.data(), expected.data(), expected.size() * sizeof(float));
    }
  }
}

// A copied page is the same for those who read it, and stays when the first is written again.
void copies(Device& device) {
  DevicePages pages(device, {1, 1, 2}, 1, false);
  CHECK(pages.growth(0) >= 1 && pages.growth(1 << 20) * static_cast<int64_t>(pages.page_bytes()) <= 32 << 20);
  pages.reserve(3);
  const void* const first = pages.data(0);
  pages.reserve(40);
  CHECK(pages.data(0) == first && pages.page_bytes() == 2 * 2 * 16 * sizeof(float));
  std::vector<float> values(64);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  device.upload(pages.data(39), values.data(), pages.page_bytes());
  pages.copy(2, 39);
  device.fill_zero(pages.data(39), pages.page_bytes());
  std::vector<float> found(values.size());
  device.download(found.data(), pages.data(2), pages.page_bytes());
  device.finish();
  CHECK(found == values);
}

}  // namespace

int main() {
  if (!have_device()) return kSkipped;
  Device device(0, 0);
  check(device, {8, 2, 6}, {1, 16, 17, 33});
  check(device, {8, 4, 40}, {1, 2, 64, 65, 129, 151});
  check(device, {3, 3, 65}, {35, 8});
  if (!kSanitized) check(device, {4, 1, 64}, {200, 4});
  copies(device);
  TEST_MAIN_END("cuda cache");
}
