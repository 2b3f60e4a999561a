#include "engine/stages.cuh"

#include <algorithm>

namespace covenant::cuda {

void Stages::prepare_rope(int64_t positions) const {
  each([&](Model& model, size_t) { model.prepare_rope(positions); });
}

void Stages::finish() const {
  each([](Model& model, size_t) { model.device().finish(); });
}

StageWeights::StageWeights(const Stages& stages, int32_t type, GenerationWeights::Keep keep)
    : stages_(stages) {
  stages.each([&](Model& model, size_t) {
    weights_.push_back(std::make_unique<GenerationWeights>(model, type, keep));
  });
}

void StageWeights::refresh() {
  stages_.each([&](Model&, size_t s) { weights_[s]->refresh(); });
}

uint64_t StageWeights::bytes() const {
  uint64_t bytes = 0;
  for (const auto& weights : weights_) bytes += weights->bytes();
  return bytes;
}

StagePages::StagePages(const Stages& stages, const StageWeights& weights) : stages_(stages) {
  stages.each([&](Model&, size_t s) { pages_.push_back(std::make_unique<DevicePages>(weights.at(s))); });
}

uint64_t StagePages::page_bytes() const {
  uint64_t bytes = 0;
  for (const auto& pages : pages_) bytes += pages->page_bytes();
  return bytes;
}

int64_t StagePages::growth(int64_t pages) const {
  int64_t least = INT64_MAX;
  for (const auto& own : pages_) least = std::min(least, own->growth(pages));
  return least;
}

// Where a later stage has no room, those before it keep what they got for the next attempt.
void StagePages::reserve(int64_t pages) {
  stages_.each([&](Model&, size_t s) { pages_[s]->reserve(pages); });
}

void StagePages::prepare(int32_t page) {
  for (const auto& pages : pages_) pages->prepare(page);
}

void StagePages::copy(int32_t to, int32_t from) {
  stages_.each([&](Model&, size_t s) { pages_[s]->copy(to, from); });
}

}  // namespace covenant::cuda
