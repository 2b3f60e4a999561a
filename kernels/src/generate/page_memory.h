// Pages in the memory of a model on the CPU, fp32 or bf16. A page holds, for each layer and each kv head,
// the keys [dim][16] of its positions, then the values [16][padded dim].
#pragma once

#include <cstdint>
#include <vector>

#include "engine/attention.h"
#include "engine/memory.h"
#include "generate/pages.h"

namespace covenant {

class PageMemory final : public PageStore {
 public:
  PageMemory(Memory& memory, const AttentionShape& shape, int64_t layers, bool bf16)
      : memory_(memory),
        shape_(shape),
        bytes_(layers * shape.kv_heads * head_elements() * (bf16 ? 2 : 4)),
        bf16_(bf16) {}

  uint64_t page_bytes() const override { return static_cast<uint64_t>(bytes_); }
  int64_t growth(int64_t) const override { return 1; }
  void reserve(int64_t pages) override;
  void prepare(int32_t page) override;
  void copy(int32_t to, int32_t from) override;

  void* data(int32_t page) const { return pages_[static_cast<size_t>(page)].data(); }
  // Of one layer and kv head.
  int64_t head_elements() const { return kPagePositions * (shape_.dim + shape_.padded_dim()); }
  bool bf16() const { return bf16_; }

 private:
  Memory& memory_;
  AttentionShape shape_;
  int64_t bytes_;
  bool bf16_;
  std::vector<Buffer<uint8_t>> pages_;
};

}  // namespace covenant
