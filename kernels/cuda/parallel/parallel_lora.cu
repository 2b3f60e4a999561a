#include "parallel/parallel_lora.h"

namespace covenant::cuda {

template <typename Body>
void ParallelLora::each(const Body& body) {
  for (const auto& lora : replicas_) {
    lora->model().device().activate();
    body(*lora);
  }
}

ParallelLora::ParallelLora(ParallelModel& model, const cov_lora_options& options) : model_(model) {
  if (model.stages_ > 1)
    raise(COV_UNSUPPORTED,
          "adapters are not split over stages; create the model with 1 stage, where every device has "
          "all layers");
  model.attempt(false, [&] {
    for (const auto& replica : model.replicas_) {
      Stage& stage = *replica->stages()[0];
      stage.device.activate();
      replicas_.push_back(std::make_unique<Lora>(stage.model, options));
    }
  });
}

ParallelLora::~ParallelLora() {
  if (model_.lora_ != this) return;
  (void)guard([&] { model_.use_lora(nullptr); });
  model_.lora_ = nullptr;  // of a closed model, too
}

uint64_t ParallelLora::memory_bytes() const {
  uint64_t bytes = 0;
  for (const auto& lora : replicas_) bytes += lora->memory_bytes();
  return bytes;
}

void ParallelLora::set_step_count(int64_t count) {
  each([&](Lora& lora) { lora.set_step_count(count); });
}

void ParallelLora::read(cov_buffer which, uint64_t offset, uint64_t count, float* values) {
  model_.attempt(false, [&] {
    if (which == COV_GRADIENTS && replicas_.size() > 1) {
      sum_gradients();
      // The sum stays on one replica, so that what is added later is added once.
      each([&](Lora& lora) {
        if (&lora != replicas_[0].get()) lora.parameters().clear_gradients();
      });
    }
    replicas_[0]->model().device().activate();
    replicas_[0]->read(which, offset, count, values);
  });
}

void ParallelLora::write(cov_buffer which, uint64_t offset, uint64_t count, const float* values) {
  const std::vector<float> zeros(which == COV_GRADIENTS ? count : 0, 0.0f);
  model_.attempt(false, [&] {
    each([&](Lora& lora) {
      const bool adds_nothing = which == COV_GRADIENTS && &lora != replicas_[0].get();
      lora.write(which, offset, count, adds_nothing ? zeros.data() : values);
    });
  });
}

void ParallelLora::sum_gradients() {
  if (replicas_.size() == 1) return;
  std::vector<float*> buffers;
  each([&](Lora& lora) { buffers.push_back(lora.parameters().state(COV_GRADIENTS)); });
  model_.rings_[0]->all_reduce(buffers, parameters().count());
}

double ParallelLora::step(const cov_adamw_options& options) {
  sum_gradients();
  replicas_[0]->model().device().activate();
  const double norm = parameters().gradient_norm();
  model_.change([&] { each([&](Lora& lora) { lora.apply_gradients(options, norm); }); });
  return norm;
}

double ParallelLora::optimizer_step(const cov_adamw_options& options) {
  double norm = 0.0;
  replicas_[0]->require_unmerged();
  model_.attempt(true, [&] {
    model_.drop_kept();
    each([](Lora& lora) { lora.parameters().prepare_step(); });
    norm = step(options);
  });
  return norm;
}

void ParallelLora::merge(bool reversible) {
  model_.attempt(false, [&] {
    each([&](Lora& lora) { lora.prepare_merge(reversible); });
    model_.drop_kept();
    model_.change([&] { each([&](Lora& lora) { lora.merge(reversible); }); });
  });
}

void ParallelLora::unmerge() {
  model_.attempt(false, [&] {
    each([](Lora& lora) { lora.require_last_merged(); });
    model_.drop_kept();
    model_.change([&] { each([](Lora& lora) { lora.unmerge(); }); });
  });
}

}  // namespace covenant::cuda
