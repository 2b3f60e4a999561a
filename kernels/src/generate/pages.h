// Keys and values in pages of 16 positions, fp32 or bf16. A page holds all layers and heads of its positions:
// per layer and kv head the keys [dim][16], then the values [16][padded dim]. Pages are counted
// references, so that sequences with the same beginning share them.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "engine/attention.h"
#include "engine/memory.h"
#include "generate/kernels.h"

namespace covenant {

struct Page {
  Buffer<uint8_t> data;
  int32_t references = 0;
};

class PagePool {
 public:
  // `page_limit` 0: as many as the memory allows. Pages are allocated when first needed and kept
  // for reuse until the pool goes.
  PagePool(Memory& memory, const AttentionShape& shape, int64_t layers, bool bf16,
           int64_t page_limit)
      : memory_(memory),
        shape_(shape),
        bytes_(layers * shape.kv_heads * head_elements() * (bf16 ? 2 : 4)),
        bf16_(bf16),
        page_limit_(page_limit) {}

  // A zeroed page with one reference; null when the limit or the memory is reached.
  Page* take();
  void retain(Page* page) { ++page->references; }
  void release(Page* page);
  // Makes `page` one that only its holder has, by a copy when needed; false when there is no room.
  bool make_unique(Page*& page);

  // Of one layer and kv head.
  int64_t head_elements() const { return kPagePositions * (shape_.dim + shape_.padded_dim()); }
  bool bf16() const { return bf16_; }
  int64_t used() const { return static_cast<int64_t>(pages_.size() - free_.size()); }
  int64_t limit() const { return page_limit_; }
  uint64_t page_bytes() const { return static_cast<uint64_t>(bytes_); }
  // Why take gave nothing the last time.
  const cov_status& refusal() const { return refusal_; }

 private:
  Memory& memory_;
  AttentionShape shape_;
  int64_t bytes_;
  bool bf16_;
  int64_t page_limit_;
  cov_status refusal_ = cov_ok();
  std::vector<std::unique_ptr<Page>> pages_;
  std::vector<Page*> free_;
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

  uint8_t* page(int64_t i) const { return pages_[static_cast<size_t>(i)]->data.data(); }
  const void* const* data() const { return data_.data(); }
  int64_t count() const { return static_cast<int64_t>(pages_.size()); }

 private:
  std::vector<Page*> pages_;
  std::vector<const void*> data_;  // of each page
};

}  // namespace covenant
