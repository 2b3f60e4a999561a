// One device's part of a pipeline: a slice of the model, and the buffers its neighbours write to.
#pragma once

#include <vector>

#include "engine/model.cuh"
#include "parallel/communicator.h"

namespace covenant::cuda {

// What a pass does: scores, scores with gradients, or gradients of an earlier scoring.
enum class Pass { kForward, kKeepingForward, kBackward, kTrain };

struct Stage {
  Stage(int32_t index, uint64_t memory_limit_bytes, const cov_model_shape& shape, Slice slice)
      : device(index, memory_limit_bytes), side(device), model(device, shape, std::move(slice)) {}

  // Activations of one micro-batch. The stage before writes layers[0].x.
  struct Slot {
    Activations activations;
    Event arrived;  // its input is there
    Event free;     // nothing reads it any more
  };
  // The gradient at the end of the layers, which becomes the one at their beginning.
  struct Gradient {
    Buffer<float> values;
    Event arrived, free;
  };

  // Allocates what a pass over `groups` needs.
  void reserve(Pass pass, size_t slot_count);
  Slot& slot(size_t micro_batch) { return slots[micro_batch % slots.size()]; }
  Gradient& gradient(size_t micro_batch) { return gradients[micro_batch % gradients.size()]; }
  uint64_t row_floats() const { return static_cast<uint64_t>(rows_max * model.layout().d); }

  Device device;
  SideStream side;
  Model model;
  std::vector<Group> groups;  // one a micro-batch
  int64_t rows_max = 0;       // of a group
  std::vector<Slot> slots;
  std::vector<Gradient> gradients;
  Event computed;
  size_t forwards = 0, backwards = 0;  // queued in this pass
};

}  // namespace covenant::cuda
