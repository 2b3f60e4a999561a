// A generator over a model on several devices: each replica has schedules of its own, as many as stages, and all
// replicas make their steps at once. Tier: that of covenant/device_generator.h, whichever schedule a request is in.
#pragma once

#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "engine/generator.cuh"
#include "parallel/parallel_model.h"

namespace covenant::cuda {

class ParallelGenerator final : public AnyGenerator {
 public:
  ParallelGenerator(ParallelModel& model, const cov_generator_options& options);

  void refresh() override;
  uint64_t submit(const cov_generate_request& request, const cov_fingerprint_options* fingerprint,
                  int32_t top_count) override;
  bool cancel(uint64_t id) override;
  void step(const Generator::Listener& listener) override;
  cov_generator_state state() const override;

 private:
  struct Schedule;
  // A request that has not ended.
  struct Request {
    uint64_t id;
    Schedule* schedule;
    uint64_t its_id;    // the schedule's
    int64_t positions;  // that it may come to
    // What a step tells of it.
    cov_generator_event event;
    std::vector<int8_t> fingerprint;
    std::vector<int32_t> top_tokens;
    std::vector<float> top_log_probs;
  };
  struct Schedule {
    Generator* generator;
    std::unordered_map<uint64_t, Request*> requests;  // by its ids
    int64_t positions = 0;                            // that they may come to
    // Of the step under way.
    std::vector<Request*> told;
    cov_status status = cov_ok();
    bool begun = false;
  };
  struct Replica {
    std::unique_ptr<Schedules> generators;
    std::vector<Schedule> schedules;  // which the requests point to
    int64_t positions() const;
  };

  Schedule& next_schedule();
  static void listen(Schedule& schedule, const cov_generator_event& event);
  static void step_replica(Replica& replica);
  void tell(const Generator::Listener& listener);
  void forget(uint64_t id);

  ParallelModel& model_;
  int64_t batch_, request_limit_;
  std::vector<Replica> replicas_;
  std::unordered_map<uint64_t, std::unique_ptr<Request>> requests_;  // by id
  std::vector<Request*> told_;
  uint64_t next_id_ = 1;
  bool alike_ = true;  // all devices have weights of one time
};

}  // namespace covenant::cuda
