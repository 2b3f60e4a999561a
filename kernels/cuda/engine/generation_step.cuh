// One step of generation on a device: rows of several sequences go through the layers over their cache, and the
// logits of each sequence's last row come to the host. Tier of device_model.h: a row's bits do not depend on the
// rows beside it, nor on whether the step runs launch by launch or as a CUDA graph.
#pragma once

#include "engine/model.cuh"
#include "runtime/graph.h"

namespace covenant::cuda {

struct GenerationSize {
  int64_t sequences;   // in the cache, and at most in one step
  int64_t positions;   // of a sequence, at most
  int64_t rows;        // of a step, at most
  bool hidden;         // hidden states come to the host as well
};

// Holds what steps need and allocates nothing later, so that graphs of steps stay valid for its life.
class GenerationStep {
 public:
  GenerationStep(Model& model, const GenerationSize& size);

  void clear();
  void add_row(int32_t token, int32_t position, int32_t sequence);
  // Logits are wanted of the row added last.
  void end_sequence() { last_.push_back(static_cast<int32_t>(rows()) - 1); }
  int64_t rows() const { return static_cast<int64_t>(tokens_.size()); }

  // Returns when the results are on the host. A step of one row for each sequence becomes a graph when it comes
  // again, unless the model has graphs switched off.
  void run();

  // Of the i-th sequence of the step.
  const float* logits(int64_t i) const { return host_logits_ + i * model_.layout().vocab; }
  const float* hidden(int64_t i) const { return host_hidden_ + i * model_.layout().d; }

 private:
  // What the launches of a step depend on.
  struct Shape {
    int64_t rows, drawn;
    int64_t longest;  // bound of position + 1
  };
  // Brings the lists to the device and computes.
  void queue(const Shape& shape);
  void pack(const Shape& shape);

  Model& model_;
  GenerationSize size_;
  GraphCache graphs_;
  Activations activations_;
  Buffer<float> cache_, logits_, hidden_;
  Buffer<int32_t> lists_;
  PinnedBuffer pinned_lists_, pinned_logits_, pinned_hidden_;
  int32_t* host_lists_;
  float *host_logits_, *host_hidden_;
  int64_t longest_ = 0;
  std::vector<int32_t> tokens_, positions_, sequences_, last_;
};

}  // namespace covenant::cuda
