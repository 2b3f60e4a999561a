// What generates and replays together: a model of one device, or the slices of a model that several devices hold
// one after the other.
#pragma once

#include <memory>
#include <vector>

#include "engine/generation_weights.cuh"
#include "engine/pages.cuh"

namespace covenant::cuda {

// Carries rows between stages.
class StageLink {
 public:
  virtual ~StageLink() = default;
  // Queued: `source` when stage `from` has computed it, and what is queued on stage `to` after this comes after it.
  virtual void carry(size_t from, const float* source, size_t to, float* target, uint64_t count) = 0;
};

class Stages {
 public:
  explicit Stages(Model& model) : models_{&model} {}
  // In order.
  Stages(std::vector<Model*> models, std::unique_ptr<StageLink> link)
      : models_(std::move(models)), link_(std::move(link)) {}

  size_t count() const { return models_.size(); }
  Model& at(size_t stage) const { return *models_[stage]; }
  const cov_model_shape& shape() const { return models_[0]->shape(); }
  StageLink* link() const { return link_.get(); }
  // Calls body(model, stage) for each, its device active; the first one's is active after it.
  template <typename Body>
  void each(const Body& body) const {
    for (size_t s = 0; s < models_.size(); ++s) {
      models_[s]->device().activate();
      body(*models_[s], s);
    }
    if (count() > 1) models_[0]->device().activate();
  }
  // The first one's device.
  void activate() const { models_[0]->device().activate(); }
  // Makes the rotary tables cover `positions`.
  void prepare_rope(int64_t positions) const;
  // Waits for all devices.
  void finish() const;

 private:
  std::vector<Model*> models_;
  std::unique_ptr<StageLink> link_;  // of several
};

// The weights of generation, by stage.
class StageWeights {
 public:
  StageWeights(const Stages& stages, int32_t type, GenerationWeights::Keep keep);
  StageWeights(const StageWeights&) = delete;
  StageWeights& operator=(const StageWeights&) = delete;

  const GenerationWeights& at(size_t stage) const { return *weights_[stage]; }
  void refresh();
  uint64_t bytes() const;

 private:
  const Stages& stages_;
  std::vector<std::unique_ptr<GenerationWeights>> weights_;
};

// Pages with their layers spread over the stages, under the same numbers.
class StagePages final : public PageStore {
 public:
  StagePages(const Stages& stages, const StageWeights& weights);

  uint64_t page_bytes() const override;
  int64_t growth(int64_t pages) const override;
  void reserve(int64_t pages) override;
  void prepare(int32_t page) override;
  void copy(int32_t to, int32_t from) override;

  const DevicePages& at(size_t stage) const { return *pages_[stage]; }

 private:
  const Stages& stages_;
  std::vector<std::unique_ptr<DevicePages>> pages_;
};

}  // namespace covenant::cuda
