// A model and the thread that works on it.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>

#include "jobs.h"
#include "model_calls.h"

namespace covenant_node {

// What getters show of a model or of adapters, as of the end of the last job.
struct Noted {
  void note(LearnedCalls& calls) {
    uint64_t bytes = 0, peak_bytes = 0;
    calls.memory(&bytes, &peak_bytes);
    steps = calls.step_count();
    memory_bytes = bytes;
    memory_peak_bytes = peak_bytes;
  }

  std::atomic<int64_t> steps{0};
  std::atomic<uint64_t> memory_bytes{0};
  std::atomic<uint64_t> memory_peak_bytes{0};
};

struct ModelEngine {
  ModelEngine(std::shared_ptr<Registry> registry, const cov_model_shape& shape)
      : length(cov_parameter_count(&shape)),
        // When the thread ends, the model goes; views that are still alive keep the buffers.
        queue(std::make_unique<JobQueue>(std::move(registry), [this] {
          const std::lock_guard lock(busy);  // adapters may be going on another thread
          model = nullptr;
          calls.reset();
        })) {}
  ~ModelEngine() { queue->join(); }

  // Submits a job whose run is guarded by `busy` and followed by note().
  Napi::Value submit(std::unique_ptr<Job> job) {
    job->run = [this, run = std::move(job->run)] {
      const std::lock_guard lock(busy);
      const cov_status status = run();
      note();
      return status;
    };
    return queue->submit(std::move(job));
  }

  // Copies what getters show, so that they never wait for a job. Call with `busy` held.
  void note() {
    if (calls != nullptr) noted.note(*calls);
  }

  const uint64_t length;  // floats in each buffer
  std::unique_ptr<ModelCalls> calls;
  cov_model* model = nullptr;  // that of the calls on the CPU, for views
  std::recursive_mutex busy;  // what a job frees may ask for it again
  Noted noted;
  std::unique_ptr<JobQueue> queue;  // last, so that its thread sees everything above
};

}  // namespace covenant_node
