#include "parallel/parallel_lora.h"

namespace covenant::cuda {

template <typename Body>
void ParallelLora::each(const Body& body) {
  for (const auto& replica : replicas_)
    for (const auto& lora : replica) {
      lora->model().device().activate();
      body(*lora);
    }
}

ParallelLora::ParallelLora(ParallelModel& model, const cov_lora_options& options)
    : model_(model), spread_(model.rings_) {
  model.attempt(nullptr, [&] {
    for (const auto& replica : model.replicas_) {
      replicas_.emplace_back();
      Spread::Replica pieces;
      for (const auto& stage : replica->stages()) {
        stage->device.activate();
        replicas_.back().push_back(std::make_unique<Lora>(stage->model, options));
        Lora& lora = *replicas_.back().back();
        pieces.push_back({stage->device, lora.parameters(), {lora.part()}});
      }
      spread_.add(std::move(pieces));
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
  for (const auto& replica : replicas_)
    for (const auto& lora : replica) bytes += lora->memory_bytes();
  return bytes;
}

void ParallelLora::read(cov_buffer which, uint64_t offset, uint64_t count, float* values) {
  model_.attempt(nullptr, [&] {
    if (which == COV_GRADIENTS) spread_.collect_gradients();
    spread_.read(0, which, offset, count, values);
  });
}

void ParallelLora::write(cov_buffer which, uint64_t offset, uint64_t count, const float* values) {
  model_.attempt(nullptr, [&] {
    if (which == COV_PARAMETERS) each([](Lora& lora) { lora.touch(); });
    spread_.write(which, offset, count, values);
  });
}

double ParallelLora::step(const cov_adamw_options& options) {
  spread_.sum_gradients();
  const double norm = spread_.gradient_norm();
  model_.change([&] { each([&](Lora& lora) { lora.apply_gradients(options, norm); }); });
  return norm;
}

double ParallelLora::optimizer_step(const cov_adamw_options& options) {
  double norm = 0.0;
  at(0, 0).require_unmerged();
  model_.attempt(&spread_, [&] {
    model_.drop_kept();
    spread_.prepare_step();
    norm = step(options);
  });
  return norm;
}

void ParallelLora::merge(bool reversible) {
  model_.attempt(nullptr, [&] {
    try {
      each([&](Lora& lora) { lora.prepare_merge(reversible); });
    } catch (...) {
      each([](Lora& lora) { lora.drop_unmerged(); });
      throw;
    }
    model_.drop_kept();
    model_.change([&] { each([&](Lora& lora) { lora.merge(reversible); }); });
  });
}

void ParallelLora::unmerge() {
  model_.attempt(nullptr, [&] {
    each([](Lora& lora) { lora.require_last_merged(); });
    model_.drop_kept();
    model_.change([&] { each([](Lora& lora) { lora.unmerge(); }); });
  });
}

}  // namespace covenant::cuda
