#include "generate/pages.h"

#include <algorithm>
#include <cstring>

namespace covenant {

Page* PagePool::take() {
  if (free_.empty()) {
    if (page_limit_ != 0 && static_cast<int64_t>(pages_.size()) >= page_limit_) {
      refusal_ = cov_error(COV_MEMORY_LIMIT, "all %lld pages are in use",
                           static_cast<long long>(page_limit_));
      return nullptr;
    }
    auto page = std::make_unique<Page>();
    try {
      page->data.reserve(memory_, bytes_);
    } catch (const Failure& failure) {
      refusal_ = failure.status;
      return nullptr;
    }
    free_.reserve(pages_.size() + 1);  // so that release cannot fail
    pages_.push_back(std::move(page));
    free_.push_back(pages_.back().get());
  }
  Page* page = free_.back();
  free_.pop_back();
  page->references = 1;
  // Scores of positions that are not there are multiplied by these and must stay finite.
  std::memset(page->data.data(), 0, page_bytes());
  return page;
}

void PagePool::release(Page* page) {
  if (--page->references == 0) free_.push_back(page);
}

bool PagePool::make_unique(Page*& page) {
  if (page->references == 1) return true;
  Page* own = take();
  if (own == nullptr) return false;
  std::memcpy(own->data.data(), page->data.data(), page_bytes());
  release(page);
  page = own;
  return true;
}

bool PageTable::reserve(PagePool& pool, int64_t from, int64_t to) {
  const int64_t last = (to + kPagePositions - 1) / kPagePositions;
  for (int64_t i = from / kPagePositions; i < std::min(count(), last); ++i) {
    Page*& page = pages_[static_cast<size_t>(i)];
    if (!pool.make_unique(page)) return false;
    data_[static_cast<size_t>(i)] = page->data.data();
  }
  pages_.reserve(static_cast<size_t>(last));
  data_.reserve(static_cast<size_t>(last));
  while (count() < last) {
    Page* page = pool.take();
    if (page == nullptr) return false;
    pages_.push_back(page);
    data_.push_back(page->data.data());
  }
  return true;
}

void PageTable::share(PagePool& pool, const PageTable& other, int64_t positions) {
  const auto wanted = (positions + kPagePositions - 1) / kPagePositions;
  pages_.reserve(static_cast<size_t>(wanted));
  data_.reserve(static_cast<size_t>(wanted));
  for (int64_t i = 0; i < wanted; ++i) {
    Page* page = other.pages_[static_cast<size_t>(i)];
    pages_.push_back(page);
    data_.push_back(page->data.data());
    pool.retain(page);
  }
}

void PageTable::clear(PagePool& pool) {
  for (Page* page : pages_) pool.release(page);
  pages_.clear();
  data_.clear();
}

}  // namespace covenant
