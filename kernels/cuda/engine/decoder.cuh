// RowDecoder on devices: rows of several sequences go through the layers over pages, stage by stage, and logits and
// hidden states come to the host. Tier of device_model.h: a row's bits do not depend on the rows beside it, on the
// number of stages, nor on whether the step runs launch by launch or as a CUDA graph. The twin of
// src/generate/decoder.h.
#pragma once

#include "engine/cache.cuh"
#include "engine/generation_layers.cuh"
#include "engine/stages.cuh"
#include "engine/step_lists.cuh"
#include "runtime/event.h"
#include "runtime/graph.h"

namespace covenant::cuda {

// What one stage computes of a step.
class DecoderStage {
 public:
  // The model's rotary table must cover size.positions.
  DecoderStage(const GenerationWeights& weights, const DevicePages& pages, const DecoderSize& size);

  Model& model() const { return layers_.weights().model(); }
  GenerationLayers& layers() { return layers_; }
  const StepLists& lists() const { return lists_; }
  // Lists the step's rows on the host.
  void pack(const StepShape& shape, const DecoderRows& rows, bool fill);
  void upload(const StepShape& shape) { lists_.upload(model().device(), shape); }
  void embed(const StepShape& shape) { layers_.embed(lists_.tokens(shape), shape.rows); }
  // Rows [first, first + count) through the layers.
  void forward(const StepShape& shape, int64_t first, int64_t count);
  // What `queue` queues: as a graph when it comes again, where the step is one that may.
  void run(const StepShape& shape, bool graph, const std::function<void()>& queue);

 private:
  const DevicePages& pages_;
  GenerationLayers layers_;
  StepLists lists_;
  bool counts_;
  GraphCache graphs_;
  const float* rope_ = nullptr;  // the table that graphs read
};

// Allocates all it needs when it is made, so that steps fail for want of pages only, and their graphs stay valid.
class DeviceDecoder final : public RowDecoder {
 public:
  DeviceDecoder(const Stages& stages, const StageWeights& weights, const StagePages& pages,
                const DecoderSize& size);

  // Queues the step, and that the results of the first drawn rows come to the host. A step of one row for each
  // sequence becomes a graph on each stage when it comes again, unless the model has graphs switched off. Other
  // steps of several stages go through them in pieces, so that the stages work at once.
  void run(const DecoderRows& rows) override;
  // For this decoder's work, not for what others queue behind it.
  void finish() override { computed_->finish(); }
  int64_t logit_rows() const override { return logit_rows_; }
  const float* logits(int64_t first, int64_t count) override;
  const float* hidden(int64_t i) const override { return host_hidden_ + (i - first_) * width_; }

 private:
  StepShape shape_of(const DecoderRows& rows, bool decode) const;
  // Where the embedding is not on the first stage, but on the last one.
  bool remote_embedding() const { return !stages_.front()->layers().weights().has_embedding(); }
  void embed_from_last(const StepShape& shape);
  // Rows [first, first + count) on one stage.
  void queue(size_t stage, const StepShape& shape, int64_t first, int64_t count);
  void carry(size_t from, size_t to, int64_t first, int64_t count);
  // Of drawn rows [first, first + count).
  void head(const StepShape& shape, int64_t first, int64_t count);
  void download(const StepShape& shape, int64_t first, int64_t count);

  DecoderStage& last() { return *stages_.back(); }

  StageLink* link_;
  DecoderSize size_;
  int64_t vocab_, width_, logit_rows_;
  std::vector<std::unique_ptr<DecoderStage>> stages_;
  Buffer<float> logits_, hidden_;
  PinnedBuffer pinned_logits_, pinned_hidden_;
  float *host_logits_, *host_hidden_;
  StepShape shape_ = {};  // of the step under way
  int64_t first_ = 0;     // of the drawn rows that are on the host
  std::unique_ptr<Event> computed_;  // and on the host
};

}  // namespace covenant::cuda
