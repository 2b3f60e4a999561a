// Pages of keys and values in the memory of a device, fp32 or bf16. A page holds, for each layer and each kv
// head, the keys [dim][16] of its positions, then the values [16][dim]: the 16 lanes that work on the positions of
// a page read neighbouring elements. The twin of src/generate/page_memory.h.
#pragma once

#include <vector>

#include "engine/generation_weights.cuh"
#include "generate/pages.h"

namespace covenant::cuda {

class DevicePages final : public PageStore {
 public:
  DevicePages(Device& device, const AttentionShape& shape, int64_t layers, bool bf16)
      : device_(device), shape_(shape), layers_(layers), bf16_(bf16) {}
  // For what is computed with these weights.
  explicit DevicePages(const GenerationWeights& weights)
      : DevicePages(weights.model().device(), weights.model().layout().attention,
                    weights.model().layout().layers, weights.bf16_pages()) {}

  uint64_t page_bytes() const override;
  // As many as there are, up to what is a fair piece of a device's memory.
  int64_t growth(int64_t pages) const override;
  void reserve(int64_t pages) override;
  // Nobody reads positions that were not written.
  void prepare(int32_t) override {}
  // Queued on the device's stream, as everything that writes and reads pages is.
  void copy(int32_t to, int32_t from) override;

  // On the device; stays the same for the life of the store.
  void* data(int32_t page) const { return addresses_[static_cast<size_t>(page)]; }
  // Elements of one layer of a page.
  int64_t layer_elements() const { return 2 * kPagePositions * shape_.kv_heads * shape_.dim; }
  bool bf16() const { return bf16_; }

 private:
  Device& device_;
  AttentionShape shape_;
  int64_t layers_;
  bool bf16_;
  std::vector<Buffer<char>> chunks_;
  std::vector<char*> addresses_;  // of the pages
};

}  // namespace covenant::cuda
