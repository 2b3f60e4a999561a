// RowDecoder on a device: rows of several sequences go through the layers over pages, and logits and hidden
// states come to the host. Tier of device_model.h: a row's bits do not depend on the rows beside it, nor on
// whether the step runs launch by launch or as a CUDA graph. The twin of src/generate/decoder.h.
#pragma once

#include "engine/cache.cuh"
#include "engine/generation_layers.cuh"
#include "generate/row_decoder.h"
#include "runtime/graph.h"

namespace covenant::cuda {

struct DecoderSize {
  int64_t rows;       // of a step, at most
  int64_t drawn;      // of a step, at most
  int64_t positions;  // of a sequence, at most
  int64_t pages;      // of all sequences of a step, at most
  bool graphs;        // steps may become CUDA graphs, and are counted
};

int64_t pages_for(int64_t positions);

// What the launches of a step depend on.
struct StepShape {
  int64_t rows, drawn;  // drawn: rows whose logits are computed with the layers
  int64_t listed;       // drawn rows altogether
  int64_t longest;      // bound of position + 1
  int64_t pages;        // listed, of all sequences
  bool hidden;          // hidden states of drawn rows are wanted
};

// The lists of a step, one after the other on the host and on the device: brought there by one copy.
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

// Allocates all it needs when it is made, so that steps fail for want of pages only, and their graphs stay valid.
class DeviceDecoder final : public RowDecoder {
 public:
  // The model's rotary table must cover size.positions.
  DeviceDecoder(const GenerationWeights& weights, const DevicePages& pages, const DecoderSize& size);

  // Returns when the results of the first drawn rows are on the host. A step of one row for each sequence becomes
  // a graph when it comes again, unless the model has graphs switched off.
  void run(const DecoderRows& rows) override;
  int64_t logit_rows() const override { return logit_rows_; }
  const float* logits(int64_t first, int64_t count) override;
  const float* hidden(int64_t i) const override {
    return host_hidden_ + (i - first_) * model_.layout().d;
  }

 private:
  StepShape shape_of(const DecoderRows& rows, bool decode) const;
  // Brings the lists to the device and computes.
  void queue(const StepShape& shape);
  // Of drawn rows [first, first + count).
  void head(const StepShape& shape, int64_t first, int64_t count);
  void download(const StepShape& shape, int64_t first, int64_t count);

  Model& model_;
  const DevicePages& pages_;
  DecoderSize size_;
  int64_t logit_rows_;
  GraphCache graphs_;
  const float* rope_ = nullptr;  // the table that graphs read
  GenerationLayers layers_;
  StepLists lists_;
  Buffer<float> logits_, hidden_;
  PinnedBuffer pinned_logits_, pinned_hidden_;
  float *host_logits_, *host_hidden_;
  StepShape shape_ = {};  // of the step under way
  int64_t first_ = 0;     // of the drawn rows that are on the host
};

}  // namespace covenant::cuda
