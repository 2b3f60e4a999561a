// Generation and replay over replicas: each works on its share of the requests, which do not depend on each
// other.
#include <atomic>
#include <mutex>

#include "engine/generator.cuh"
#include "parallel/parallel_model.h"
#include "parallel/stage_link.h"

namespace covenant::cuda {
namespace {

// The caller's callback, for one thread at a time.
struct Listener {
  const cov_generate_options& options;
  std::mutex mutex;

  static void call(void* context, int32_t request, int32_t index, int32_t token, float log_prob) {
    auto& self = *static_cast<Listener*>(context);
    const std::lock_guard<std::mutex> guard(self.mutex);
    self.options.on_token(self.options.context, request, index, token, log_prob);
  }
};

}  // namespace

Stages ParallelModel::stages_of(size_t replica) {
  std::vector<Model*> models;
  std::vector<Device*> devices;
  for (const auto& stage : replicas_[replica]->stages()) {
    models.push_back(&stage->model);
    devices.push_back(&stage->device);
  }
  return {std::move(models), std::make_unique<PeerLink>(std::move(devices))};
}

void ParallelModel::spread(int32_t count, const OnShare& body) {
  const auto replicas = static_cast<int64_t>(replicas_.size());
  std::atomic<bool> stop{false};
  std::mutex mutex;
  cov_status first_failure = cov_ok();
  const auto run = [&](size_t replica) {
    const auto r = static_cast<int64_t>(replica);
    const auto first = static_cast<int32_t>(count * r / replicas);
    const auto after = static_cast<int32_t>(count * (r + 1) / replicas);
    if (first == after) return;
    const cov_status status = guard([&] {
      body(stages_of(replica), after - first, {first, static_cast<int32_t>(replicas), &stop});
    });
    if (status.code == COV_OK) return;
    const std::lock_guard<std::mutex> guard(mutex);
    if (first_failure.code == COV_OK) first_failure = status;
    stop.store(true, std::memory_order_relaxed);
  };
  attempt(nullptr, [&] {
    crew().run(run);
    require(first_failure);
  });
}

Crew& ParallelModel::crew() {
  if (crew_ == nullptr) crew_ = std::make_unique<Crew>(replicas_.size());
  return *crew_;
}

void ParallelModel::generate(const cov_generate_request* requests, int32_t count,
                             const cov_generate_options& options, cov_generate_output* outputs) {
  Listener listener = {options, {}};
  cov_generate_options shared = options;
  if (options.on_token != nullptr) {
    shared.on_token = Listener::call;
    shared.context = &listener;
  }
  spread(count, [&](const Stages& stages, int32_t share_count, const Share& share) {
    cuda::generate(stages, requests + share.first, share_count, shared, outputs + share.first, share);
  });
}

void ParallelModel::replay(const cov_replay_request* requests, int32_t count,
                           const cov_replay_options& options, const cov_replay_output* outputs) {
  spread(count, [&](const Stages& stages, int32_t share_count, const Share& share) {
    cuda::replay(stages, requests + share.first, share_count, options, outputs + share.first, share);
  });
}

}  // namespace covenant::cuda
