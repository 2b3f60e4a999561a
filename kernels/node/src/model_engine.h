// A model and the thread that works on it.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>

#include "covenant/model.h"
#include "jobs.h"

namespace covenant_node {

struct ModelEngine {
  explicit ModelEngine(std::shared_ptr<Registry> registry)
      // When the thread ends, the handle goes; views that are still alive keep the buffers.
      : queue(std::make_unique<JobQueue>(std::move(registry), [this] {
          cov_model_release(model);
          model = nullptr;
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
    if (model == nullptr) return;
    steps = cov_model_step_count(model);
    memory_bytes = cov_model_memory_bytes(model);
    memory_peak_bytes = cov_model_memory_peak_bytes(model);
  }

  cov_model* model = nullptr;
  std::recursive_mutex busy;  // what a job frees may ask for it again
  std::atomic<int64_t> steps{0};
  std::atomic<uint64_t> memory_bytes{0};
  std::atomic<uint64_t> memory_peak_bytes{0};
  std::unique_ptr<JobQueue> queue;  // last, so that its thread sees everything above
};

}  // namespace covenant_node
