#include "parallel/parallel_generator.h"

#include <algorithm>

namespace covenant::cuda {

ParallelGenerator::ParallelGenerator(ParallelModel& model, const cov_generator_options& options)
    : model_(model),
      batch_(limits_of(options, 0).batch),
      request_limit_(limits_of(options, 0).request_limit),
      replicas_(model.replicas_.size()) {
  model.attempt(nullptr, [&] {
    for (size_t r = 0; r < replicas_.size(); ++r) {
      Replica& replica = replicas_[r];
      replica.generators =
          std::make_unique<Schedules>(model.stages_of(r), options, static_cast<int>(replicas_.size()));
      replica.schedules.resize(replica.generators->count());
      for (size_t i = 0; i < replica.schedules.size(); ++i)
        replica.schedules[i].generator = &replica.generators->at(i);
    }
  });
}

int64_t ParallelGenerator::Replica::positions() const {
  int64_t sum = 0;
  for (const Schedule& schedule : schedules) sum += schedule.positions;
  return sum;
}

// Of the replica with the least work. A step of a schedule takes as long for one sequence as for a few, and two
// schedules longer than one, so the first ones are filled first.
ParallelGenerator::Schedule& ParallelGenerator::next_schedule() {
  Replica& replica = *std::min_element(
      replicas_.begin(), replicas_.end(),
      [](const Replica& a, const Replica& b) { return a.positions() < b.positions(); });
  for (Schedule& schedule : replica.schedules)
    if (static_cast<int64_t>(schedule.requests.size()) < batch_) return schedule;
  return *std::min_element(
      replica.schedules.begin(), replica.schedules.end(),
      [](const Schedule& a, const Schedule& b) { return a.positions < b.positions; });
}

void ParallelGenerator::refresh() {
  if (!requests_.empty()) raise(COV_FAILED_PRECONDITION, "requests are under way");
  model_.attempt(nullptr, [&] {
    alike_ = false;
    for (Replica& replica : replicas_) {
      replica.generators->stages().activate();
      replica.generators->refresh();
    }
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
  Schedule& schedule = next_schedule();
  // Telling of a token must not allocate.
  schedule.told.reserve(schedule.requests.size() + 1);
  told_.reserve(requests_.size() + 1);
  Request& added = *(requests_[next_id_] = std::make_unique<Request>());
  try {
    added.its_id = schedule.generator->submit(request, fingerprint, top_count);
    added.id = next_id_;
    added.schedule = &schedule;
    added.positions = int64_t{request.prompt_length} + request.max_new_tokens;
    schedule.positions += added.positions;
    added.fingerprint.resize(fingerprint == nullptr ? 0 : static_cast<size_t>(fingerprint->dims));
    added.top_tokens.resize(static_cast<size_t>(top_count));
    added.top_log_probs.resize(static_cast<size_t>(top_count));
    schedule.requests[added.its_id] = &added;
  } catch (...) {
    if (added.schedule != nullptr) (void)schedule.generator->cancel(added.its_id);
    forget(next_id_);
    throw;
  }
  return next_id_++;
}

bool ParallelGenerator::cancel(uint64_t id) {
  const auto found = requests_.find(id);
  if (found == requests_.end()) return false;
  (void)found->second->schedule->generator->cancel(found->second->its_id);
  forget(id);
  return true;
}

void ParallelGenerator::forget(uint64_t id) {
  const Request& request = *requests_[id];
  if (request.schedule != nullptr) {
    request.schedule->positions -= request.positions;
    request.schedule->requests.erase(request.its_id);
  }
  requests_.erase(id);
}

// What the event points to is valid only now.
void ParallelGenerator::listen(Schedule& schedule, const cov_generator_event& event) {
  Request& request = *schedule.requests.find(event.request)->second;
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
  schedule.told.push_back(&request);
}

// In the order in which the requests were submitted.
void ParallelGenerator::tell(const Generator::Listener& listener) {
  told_.clear();
  for (Replica& replica : replicas_)
    for (Schedule& schedule : replica.schedules) {
      told_.insert(told_.end(), schedule.told.begin(), schedule.told.end());
      schedule.told.clear();
    }
  std::sort(told_.begin(), told_.end(), [](const Request* a, const Request* b) { return a->id < b->id; });
  for (const Request* const request : told_) {
    listener(request->event);
    if (request->event.finish_reason != COV_FINISH_NOT_YET) forget(request->id);
  }
}

// All schedules begin before the first one ends, so that several stages have work.
void ParallelGenerator::step_replica(Replica& replica) {
  bool failed = false;
  for (Schedule& schedule : replica.schedules) {
    schedule.begun = false;
    schedule.status = guard([&] {
      replica.generators->stages().activate();
      schedule.begun = schedule.generator->begin(
          [&](const cov_generator_event& event) { listen(schedule, event); });
    });
    failed = failed || schedule.status.code != COV_OK;
  }
  for (Schedule& schedule : replica.schedules) {
    if (!schedule.begun) continue;
    schedule.status = guard([&] {
      schedule.generator->end([&](const cov_generator_event& event) { listen(schedule, event); });
    });
    failed = failed || schedule.status.code != COV_OK;
  }
  // What was queued still reads the step's lists.
  if (failed) (void)guard([&] { replica.generators->stages().finish(); });
}

void ParallelGenerator::step(const Generator::Listener& listener) {
  model_.attempt(nullptr, [&] {
    if (requests_.empty()) return;
    model_.crew().run([&](size_t r) { step_replica(replicas_[r]); });
    // Whatever became of one schedule, the others have drawn.
    tell(listener);
    for (const Replica& replica : replicas_)
      for (const Schedule& schedule : replica.schedules) require(schedule.status);
  });
}

cov_generator_state ParallelGenerator::state() const {
  cov_generator_state all = {};
  for (const Replica& replica : replicas_) {
    all.weight_bytes += replica.generators->weight_bytes();
    for (const Schedule& schedule : replica.schedules) {
      const cov_generator_state one = schedule.generator->state();
      all.running += one.running;
      all.waiting += one.waiting;
      all.pages += one.pages;
      all.page_limit += one.page_limit;
      all.page_bytes = one.page_bytes;
      all.computed_rows += one.computed_rows;
      all.shared_rows += one.shared_rows;
      all.preemptions += one.preemptions;
    }
  }
  return all;
}

}  // namespace covenant::cuda
