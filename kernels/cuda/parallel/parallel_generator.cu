#include "parallel/parallel_generator.h"

#include <algorithm>

namespace covenant::cuda {

ParallelGenerator::ParallelGenerator(ParallelModel& model, const cov_generator_options& options)
    : model_(model),
      request_limit_(limits_of(options, 0).request_limit),
      replicas_(model.replicas_.size()) {
  model.attempt(nullptr, [&] {
    for (size_t r = 0; r < replicas_.size(); ++r)
      replicas_[r].generator = std::make_unique<DeviceGenerator>(model.stages_of(r), options,
                                                                 static_cast<int>(replicas_.size()));
  });
}

void ParallelGenerator::refresh() {
  if (!requests_.empty()) raise(COV_FAILED_PRECONDITION, "requests are under way");
  model_.attempt(nullptr, [&] {
    alike_ = false;
    for (Replica& replica : replicas_) replica.generator->refresh();
    alike_ = true;
  });
}

uint64_t ParallelGenerator::submit(const cov_generate_request& request,
                                   const cov_fingerprint_options* fingerprint, int32_t top_count) {
  model_.require_open();
  if (!alike_)
    raise(COV_FAILED_PRECONDITION, "the weights differ between devices since a refresh failed; refresh again");
  if (static_cast<int64_t>(requests_.size()) >= request_limit_)
    raise(COV_BUSY, "%zu requests are under way already, which is the limit", requests_.size());
  Replica& replica = *std::min_element(
      replicas_.begin(), replicas_.end(),
      [](const Replica& a, const Replica& b) { return a.positions < b.positions; });
  // Telling of a token must not allocate.
  replica.told.reserve(replica.requests.size() + 1);
  told_.reserve(requests_.size() + 1);
  Request& added = *(requests_[next_id_] = std::make_unique<Request>());
  try {
    added.its_id = replica.generator->submit(request, fingerprint, top_count);
    added.id = next_id_;
    added.replica = &replica;
    added.positions = int64_t{request.prompt_length} + request.max_new_tokens;
    replica.positions += added.positions;
    added.fingerprint.resize(fingerprint == nullptr ? 0 : static_cast<size_t>(fingerprint->dims));
    added.top_tokens.resize(static_cast<size_t>(top_count));
    added.top_log_probs.resize(static_cast<size_t>(top_count));
    replica.requests[added.its_id] = &added;
  } catch (...) {
    if (added.replica != nullptr) (void)replica.generator->cancel(added.its_id);
    forget(next_id_);
    throw;
  }
  return next_id_++;
}

bool ParallelGenerator::cancel(uint64_t id) {
  const auto found = requests_.find(id);
  if (found == requests_.end()) return false;
  (void)found->second->replica->generator->cancel(found->second->its_id);
  forget(id);
  return true;
}

void ParallelGenerator::forget(uint64_t id) {
  const Request& request = *requests_[id];
  if (request.replica != nullptr) {
    request.replica->positions -= request.positions;
    request.replica->requests.erase(request.its_id);
  }
  requests_.erase(id);
}

// What the event points to is valid only now.
void ParallelGenerator::listen(Replica& replica, const cov_generator_event& event) {
  Request& request = *replica.requests.find(event.request)->second;
  request.event = event;
  request.event.request = request.id;
  const auto keep = [](const auto*& from, auto& to) {
    if (from == nullptr) return;
    std::copy_n(from, to.size(), to.begin());
    from = to.data();
  };
  keep(request.event.fingerprint, request.fingerprint);
  keep(request.event.top_tokens, request.top_tokens);
  keep(request.event.top_log_probs, request.top_log_probs);
  replica.told.push_back(&request);
}

// In the order in which the requests were submitted.
void ParallelGenerator::tell(const Generator::Listener& listener) {
  told_.clear();
  for (Replica& replica : replicas_) {
    told_.insert(told_.end(), replica.told.begin(), replica.told.end());
    replica.told.clear();
  }
  std::sort(told_.begin(), told_.end(), [](const Request* a, const Request* b) { return a->id < b->id; });
  for (const Request* const request : told_) {
    listener(request->event);
    if (request->event.finish_reason != COV_FINISH_NOT_YET) forget(request->id);
  }
}

void ParallelGenerator::step(const Generator::Listener& listener) {
  model_.attempt(nullptr, [&] {
    if (requests_.empty()) return;
    model_.crew().run([&](size_t r) {
      Replica& replica = replicas_[r];
      replica.status = guard([&] {
        replica.generator->step([&](const cov_generator_event& event) { listen(replica, event); });
      });
    });
    // Whatever became of one replica, the others have drawn.
    tell(listener);
    for (const Replica& replica : replicas_) require(replica.status);
  });
}

cov_generator_state ParallelGenerator::state() const {
  cov_generator_state all = {};
  for (const Replica& replica : replicas_) {
    const cov_generator_state one = replica.generator->state();
    all.running += one.running;
    all.waiting += one.waiting;
    all.pages += one.pages;
    all.page_limit += one.page_limit;
    all.page_bytes = one.page_bytes;
    all.weight_bytes += one.weight_bytes;
    all.computed_rows += one.computed_rows;
    all.shared_rows += one.shared_rows;
    all.preemptions += one.preemptions;
  }
  return all;
}

}  // namespace covenant::cuda
