#include "parallel/stage.h"

#include <algorithm>

namespace covenant::cuda {

void Stage::reserve(Pass pass, size_t slot_count) {
  device.activate();
  forwards = backwards = 0;
  if (pass == Pass::kTrain || pass == Pass::kBackward) model.trained().prepare_step();
  rows_max = 0;
  for (const Group& group : groups) rows_max = std::max(rows_max, group.rows());
  if (groups.empty()) return;
  model.prepare(groups[0].length);
  // Fewer slots than before free their memory.
  if (slots.size() > slot_count) device.finish();
  while (slots.size() > slot_count) slots.pop_back();
  while (slots.size() < slot_count) slots.emplace_back();
  for (Slot& slot : slots)
    slot.activations.reserve(device, model.layout(), rows_max, pass == Pass::kForward);
  if (gradients.empty()) gradients.resize(2);
  if (pass == Pass::kForward) return;
  for (Gradient& gradient : gradients)
    if (gradient.values.count() < row_floats()) {
      gradient.values = Buffer<float>();
      gradient.values = Buffer<float>(device, row_floats());
    }
}

}  // namespace covenant::cuda
