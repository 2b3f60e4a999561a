// Generators over a model on devices: the schedule and the draws of src/generate, with pages, weights and layers
// on the devices.
#pragma once

#include "engine/decoder.cuh"
#include "generate/call.h"

namespace covenant::cuda {

// All that a generator consists of.
struct DeviceGeneration {
  // `stages` and `weights` must outlive it.
  DeviceGeneration(const Stages& stages, const StageWeights& weights, const DecoderSize& size,
                   const GeneratorLimits& limits, int host_threads)
      : pages(stages, weights),
        threads(host_threads),
        decoder(stages, weights, pages, size),
        generator(stages.shape(), threads, decoder, pages, limits) {}

  StagePages pages;
  ThreadPool threads;
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

// Of one device, or of one replica that is split over several.
class DeviceGenerator final : public AnyGenerator {
 public:
  // of: generators that share the host's threads.
  DeviceGenerator(Stages stages, const cov_generator_options& options, int of = 1);
  // Waits for the devices.
  ~DeviceGenerator() override;
  DeviceGenerator(const DeviceGenerator&) = delete;
  DeviceGenerator& operator=(const DeviceGenerator&) = delete;

  void refresh() override;
  uint64_t submit(const cov_generate_request& request, const cov_fingerprint_options* fingerprint,
                  int32_t top_count) override {
    return generation_->generator.submit(request, fingerprint, top_count);
  }
  bool cancel(uint64_t id) override { return generation_->generator.cancel(id); }
  void step(const Generator::Listener& listener) override;
  cov_generator_state state() const override;

 private:
  Stages stages_;
  int64_t positions_;  // of a sequence, at most
  StageWeights weights_;
  std::unique_ptr<DeviceGeneration> generation_;
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
