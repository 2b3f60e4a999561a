// A generator over a model on a device: the schedule and the draws of src/generate, with pages, weights and layers
// on the device.
#pragma once

#include "engine/decoder.cuh"
#include "generate/call.h"

namespace covenant::cuda {

// All that a generator consists of.
struct DeviceGeneration {
  // `weights` must outlive it.
  DeviceGeneration(const GenerationWeights& weights, const DecoderSize& size, const GeneratorLimits& limits,
                   int host_threads)
      : pages(weights),
        threads(host_threads),
        decoder(weights, pages, size),
        generator(weights.model().shape(), threads, decoder, pages, limits) {}

  DevicePages pages;
  ThreadPool threads;
  DeviceDecoder decoder;
  Generator generator;
};

// What cov_device_generator is on the device's side.
class DeviceGenerator {
 public:
  DeviceGenerator(Model& model, const cov_generator_options& options);
  // Waits for the device.
  ~DeviceGenerator();
  DeviceGenerator(const DeviceGenerator&) = delete;
  DeviceGenerator& operator=(const DeviceGenerator&) = delete;

  void activate() const { model_.device().activate(); }
  void refresh();
  Generator& generator() { return generation_->generator; }
  cov_generator_state state() const;
  void step(const Generator::Listener& listener);

 private:
  Model& model_;
  int64_t positions_;  // of a sequence, at most
  GenerationWeights weights_;
  std::unique_ptr<DeviceGeneration> generation_;
};

// Rows that a step of the schedule may have.
inline int64_t step_rows_max(const GeneratorLimits& limits) {
  return std::max<int64_t>(limits.step_rows, limits.batch + kPagePositions);
}

}  // namespace covenant::cuda
