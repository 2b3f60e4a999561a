// The lists of a step of generation, as one device reads them.
#pragma once

#include "engine/pages.cuh"
#include "generate/row_decoder.h"

namespace covenant::cuda {

struct DecoderSize {
  int64_t rows;       // of a step, at most
  int64_t drawn;      // of a step, at most
  int64_t positions;  // of a sequence, at most
  int64_t pages;      // of all sequences of a step, at most
  bool graphs;        // steps may become CUDA graphs, and are counted
};

inline int64_t pages_for(int64_t positions) { return (positions + kPagePositions - 1) / kPagePositions; }

// What the launches of a step depend on.
struct StepShape {
  int64_t rows, drawn;  // drawn: rows whose logits are computed with the layers
  int64_t listed;       // drawn rows altogether
  int64_t longest;      // bound of position + 1
  int64_t pages;        // listed, of all sequences
  bool hidden;          // hidden states of drawn rows are wanted
};

// One after the other on the host and on the device: brought there by one copy.
class StepLists {
 public:
  StepLists(Device& device, const DecoderSize& size);
  void pack(const StepShape& shape, const DecoderRows& rows, const DevicePages& pages, bool fill);
  void upload(Device& device, const StepShape& shape) const;

  // On the device.
  void* const* pages() const { return reinterpret_cast<void* const*>(device_.data()); }
  const int32_t* tokens(const StepShape& s) const {
    return reinterpret_cast<const int32_t*>(pages() + s.pages);
  }
  const int32_t* positions(const StepShape& s) const { return tokens(s) + s.rows; }
  const int32_t* first_pages(const StepShape& s) const { return positions(s) + s.rows; }
  const int32_t* drawn(const StepShape& s) const { return first_pages(s) + s.rows; }

 private:
  Buffer<char> device_;
  PinnedBuffer pinned_;
  char* host_;
};

}  // namespace covenant::cuda
