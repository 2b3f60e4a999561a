#include "generate/pages.h"

#include <algorithm>

namespace covenant {
namespace {

int64_t pages_for(int64_t positions) { return (positions + kPagePositions - 1) / kPagePositions; }

}  // namespace

// As many pages as the store likes, or as there is room for.
bool PagePool::grow() {
  const auto have = static_cast<int64_t>(references_.size());
  int64_t more = store_.growth(have);
  if (page_limit_ != 0) {
    more = std::min(more, page_limit_ - have);
    if (more <= 0) {
      refusal_ = cov_error(COV_MEMORY_LIMIT, "all %lld pages are in use",
                           static_cast<long long>(page_limit_));
      return false;
    }
  }
  // So that nothing after the store's memory can fail, nor release.
  references_.reserve(static_cast<size_t>(have + more));
  free_.reserve(static_cast<size_t>(have + more));
  for (;; more /= 2) {
    try {
      store_.reserve(have + more);
      break;
    } catch (const Failure& failure) {
      refusal_ = failure.status;
      if (more == 1) return false;
    }
  }
  references_.resize(static_cast<size_t>(have + more), 0);
  for (int64_t page = have + more - 1; page >= have; --page)
    free_.push_back(static_cast<int32_t>(page));
  return true;
}

int32_t PagePool::take() {
  if (free_.empty() && !grow()) return kNone;
  const int32_t page = free_.back();
  store_.prepare(page);
  free_.pop_back();
  references_[static_cast<size_t>(page)] = 1;
  return page;
}

void PagePool::release(int32_t page) {
  if (--references_[static_cast<size_t>(page)] == 0) free_.push_back(page);
}

bool PagePool::make_unique(int32_t& page) {
  if (references_[static_cast<size_t>(page)] == 1) return true;
  const int32_t own = take();
  if (own == kNone) return false;
  try {
    store_.copy(own, page);
  } catch (...) {
    release(own);
    throw;
  }
  release(page);
  page = own;
  return true;
}

bool PageTable::reserve(PagePool& pool, int64_t from, int64_t to) {
  const auto last = static_cast<size_t>(pages_for(to));
  for (size_t i = static_cast<size_t>(from / kPagePositions); i < std::min(pages_.size(), last); ++i)
    if (!pool.make_unique(pages_[i])) return false;
  pages_.reserve(last);
  while (pages_.size() < last) {
    const int32_t page = pool.take();
    if (page == PagePool::kNone) return false;
    pages_.push_back(page);
  }
  return true;
}

void PageTable::share(PagePool& pool, const PageTable& other, int64_t positions) {
  const auto end = other.pages_.begin() + pages_for(positions);
  pages_.assign(other.pages_.begin(), end);
  for (const int32_t page : pages_) pool.retain(page);
}

void PageTable::clear(PagePool& pool) {
  for (const int32_t page : pages_) pool.release(page);
  pages_.clear();
}

}  // namespace covenant
