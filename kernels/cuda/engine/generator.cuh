// Generators over a model on devices: the schedule and the draws of src/generate, with pages, weights and layers
// on the devices.
#pragma once

#include "engine/decoder.cuh"
#include "generate/call.h"

namespace covenant::cuda {

// What one schedule consists of.
struct DeviceGeneration {
  // All of these must outlive it.
  DeviceGeneration(const Stages& stages, const StageWeights& weights, const DecoderSize& size,
                   const GeneratorLimits& limits, ThreadPool& threads)
      : pages(stages, weights),
        decoder(stages, weights, pages, size),
        generator(stages.shape(), threads, decoder, pages, limits) {}

  StagePages pages;
  DeviceDecoder decoder;
  Generator generator;
};

// What cov_device_generator is on the devices' side.
class AnyGenerator {
 public:
  virtual ~AnyGenerator() = default;
  virtual void refresh() = 0;
  virtual uint64_t submit(const cov_generate_request& request, const cov_fingerprint_options* fingerprint,
                          int32_t top_count) = 0;
  // False when there is no such request any more.
  virtual bool cancel(uint64_t id) = 0;
  virtual void step(const Generator::Listener& listener) = 0;
  virtual cov_generator_state state() const = 0;
};

// A snapshot of the weights, and schedules that compute with it in turn: as many as there are stages.
class Schedules {
 public:
  // of: how many such share the host's threads.
  Schedules(Stages stages, const cov_generator_options& options, int of);
  // Waits for the devices.
  ~Schedules();
  Schedules(const Schedules&) = delete;
  Schedules& operator=(const Schedules&) = delete;

  const Stages& stages() const { return stages_; }
  size_t count() const { return schedules_.size(); }
  Generator& at(size_t i) { return schedules_[i]->generator; }
  const Generator& at(size_t i) const { return schedules_[i]->generator; }
  // COV_FAILED_PRECONDITION unless all are idle.
  void refresh();
  uint64_t weight_bytes() const { return weights_.bytes(); }

 private:
  Stages stages_;
  StageWeights weights_;
  ThreadPool threads_;
  std::vector<std::unique_ptr<DeviceGeneration>> schedules_;
};

// Of one device.
class DeviceGenerator final : public AnyGenerator {
 public:
  DeviceGenerator(Model& model, const cov_generator_options& options)
      : schedules_(Stages(model), options, 1) {}

  void refresh() override;
  uint64_t submit(const cov_generate_request& request, const cov_fingerprint_options* fingerprint,
                  int32_t top_count) override {
    return schedules_.at(0).submit(request, fingerprint, top_count);
  }
  bool cancel(uint64_t id) override { return schedules_.at(0).cancel(id); }
  void step(const Generator::Listener& listener) override;
  cov_generator_state state() const override;

 private:
  Schedules schedules_;
};

// As the calls of a model of these stages.
void generate(const Stages& stages, const cov_generate_request* requests, int32_t count,
              const cov_generate_options& options, cov_generate_output* outputs, const Share& share);
void replay(const Stages& stages, const cov_replay_request* requests, int32_t count,
            const cov_replay_options& options, const cov_replay_output* outputs, const Share& share);

// Rows that a step of the schedule may have.
inline int64_t step_rows_max(const GeneratorLimits& limits) {
  return std::max<int64_t>(limits.step_rows, limits.batch + kPagePositions);
}

}  // namespace covenant::cuda
