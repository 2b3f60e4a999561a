#include "engine/step_lists.cuh"

#include <algorithm>

namespace covenant::cuda {
namespace {

uint64_t list_bytes(int64_t pages, int64_t rows, int64_t drawn) {
  return static_cast<uint64_t>(pages) * sizeof(void*) +
         static_cast<uint64_t>(3 * rows + drawn) * sizeof(int32_t);
}

}  // namespace

StepLists::StepLists(Device& device, const DecoderSize& size)
    : device_(device, list_bytes(size.pages, size.rows, size.drawn)),
      host_(static_cast<char*>(pinned_.reserve(device_.bytes()))) {}

// With `fill`, the table of each sequence has the same length. Rows that fill a step up repeat the first one: they
// write the same keys and values to the same place, and nobody reads what becomes of them.
void StepLists::pack(const StepShape& shape, const DecoderRows& rows, const DevicePages& pages, bool fill) {
  auto* const addresses = reinterpret_cast<void**>(host_);
  auto* const tokens = reinterpret_cast<int32_t*>(addresses + shape.pages);
  int32_t* const first = tokens + 2 * shape.rows;
  int64_t next = 0;
  for (const DecoderSegment& segment : rows.segments) {
    const int64_t count = pages_for(segment.start + segment.count);
    std::fill_n(first + segment.row, segment.count, static_cast<int32_t>(next));
    for (int64_t i = 0; i < count; ++i)
      addresses[next + i] = pages.data(segment.pages->pages()[static_cast<size_t>(i)]);
    next += fill ? pages_for(shape.longest) : count;
  }
  const auto put = [](const auto& list, int32_t* to, int64_t count) {
    int32_t* const end = std::transform(list.begin(), list.end(), to,
                                        [](auto value) { return static_cast<int32_t>(value); });
    if (end < to + count) std::fill(end, to + count, *to);
  };
  put(rows.tokens, tokens, shape.rows);
  put(rows.positions, tokens + shape.rows, shape.rows);
  std::fill(first + rows.count(), first + shape.rows, 0);
  put(rows.drawn, first + shape.rows, shape.listed);
}

void StepLists::upload(Device& device, const StepShape& shape) const {
  device.upload(device_.data(), host_, list_bytes(shape.pages, shape.rows, shape.listed));
}

}  // namespace covenant::cuda
