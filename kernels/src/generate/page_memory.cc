#include "generate/page_memory.h"

#include <cstring>

namespace covenant {

void PageMemory::reserve(int64_t pages) {
  while (static_cast<int64_t>(pages_.size()) < pages) pages_.emplace_back(memory_, bytes_);
}

void PageMemory::prepare(int32_t page) {
  // Scores of positions that are not there are multiplied by these and must stay finite.
  std::memset(data(page), 0, page_bytes());
}

void PageMemory::copy(int32_t to, int32_t from) {
  std::memcpy(data(to), data(from), page_bytes());
}

}  // namespace covenant
