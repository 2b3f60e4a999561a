// Pages of 16 positions of keys and values, by their numbers: counted references, so that sequences with
// the same beginning share them. Where pages lie, and how, is the affair of a PageStore.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/failure.h"
#include "generate/kernels.h"

namespace covenant {

class PageStore {
 public:
  virtual ~PageStore() = default;
  // Of one page, with all layers and heads.
  virtual uint64_t page_bytes() const = 0;
  // By how many pages it is best to grow from `pages` on, at least 1.
  virtual int64_t growth(int64_t pages) const = 0;
  // Memory for pages 0 to pages - 1; those that are there already stay where they are. Throws Failure.
  virtual void reserve(int64_t pages) = 0;
  // A page gets a new holder, who has written nothing yet.
  virtual void prepare(int32_t page) = 0;
  virtual void copy(int32_t to, int32_t from) = 0;
};

class PagePool {
 public:
  // `page_limit` 0: as many as the memory allows. Pages are allocated when first needed and kept
  // for reuse until the store goes.
  PagePool(PageStore& store, int64_t page_limit) : store_(store), page_limit_(page_limit) {}

  static constexpr int32_t kNone = -1;
  // A page with one reference; kNone when the limit or the memory is reached.
  int32_t take();
  void retain(int32_t page) { ++references_[static_cast<size_t>(page)]; }
  void release(int32_t page);
  // Makes `page` one that only its holder has, by a copy when needed; false when there is no room.
  bool make_unique(int32_t& page);

  int64_t used() const { return static_cast<int64_t>(references_.size() - free_.size()); }
  int64_t limit() const { return page_limit_; }
  uint64_t page_bytes() const { return store_.page_bytes(); }
  // Why take gave nothing the last time.
  const cov_status& refusal() const { return refusal_; }

 private:
  bool grow();

  PageStore& store_;
  int64_t page_limit_;
  cov_status refusal_ = cov_ok();
  std::vector<int32_t> references_;  // by page
  std::vector<int32_t> free_;
};

// The pages of one sequence, in order of position.
class PageTable {
 public:
  PageTable() = default;
  PageTable(const PageTable&) = delete;
  PageTable& operator=(const PageTable&) = delete;

  // Makes positions [from, to) writable. False when there is no page left; then the table is as
  // before but for pages it already got.
  bool reserve(PagePool& pool, int64_t from, int64_t to);
  // Shares the pages of the first `positions` of another sequence.
  void share(PagePool& pool, const PageTable& other, int64_t positions);
  void clear(PagePool& pool);

  const std::vector<int32_t>& pages() const { return pages_; }

 private:
  std::vector<int32_t> pages_;
};

}  // namespace covenant
