// What every long-lived generator must do, on the CPU and on devices: whatever joins, leaves, is cancelled or
// loses its pages, each request yields what it yields alone.
//
// Api: the calls of one kind of generator, as CpuGenerator below.
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "../engine/support.h"
#include "covenant/generator.h"

namespace covenant_test {

struct CpuGenerator {
  using Model = cov_model;
  using Generator = cov_generator;
  static constexpr auto generate = cov_model_generate;
  static constexpr auto create = cov_generator_create;
  static constexpr auto release = cov_generator_release;
  static constexpr auto refresh = cov_generator_refresh;
  static constexpr auto submit = cov_generator_submit;
  static constexpr auto cancel = cov_generator_cancel;
  static constexpr auto step = cov_generator_step;
  static constexpr auto state = cov_generator_get_state;
};

struct Completion {
  std::vector<int32_t> tokens;
  std::vector<float> log_probs;
  std::vector<int8_t> fingerprints;
  int32_t reason = COV_FINISH_NOT_YET;
  cov_status status = cov_ok();
};

struct Job {
  std::vector<int32_t> prompt, stops;
  cov_generate_request request = {};
};

inline constexpr int32_t kDims = 4;
inline const cov_fingerprint_options kFingerprint = {{1, 2, 3}, kDims};

// Prompts partly begin alike, as groups and conversations do.
inline std::vector<Job> make_jobs(const cov_model_shape& shape, int32_t count, uint32_t seed) {
  Numbers numbers(seed);
  const std::vector<int32_t> common = numbers.tokens(60, shape.vocab_size);
  std::vector<Job> jobs(static_cast<size_t>(count));
  const float temperatures[] = {1.0f, 0.0f, 0.8f};
  for (int32_t i = 0; i < count; ++i) {
    Job& job = jobs[static_cast<size_t>(i)];
    const int32_t shared = i % 3 == 0 ? 0 : 15 + numbers.below(25);
    job.prompt.assign(common.begin(), common.begin() + shared);
    const int32_t own = i % 4 == 1 ? 0 : 1 + numbers.below(16);
    for (int32_t t = 0; t < own || job.prompt.empty(); ++t)
      job.prompt.push_back(numbers.below(shape.vocab_size));
    job.stops = {numbers.below(shape.vocab_size)};
  }
  for (int32_t i = 0; i < count; ++i) {
    Job& job = jobs[static_cast<size_t>(i)];
    cov_generate_request& r = job.request;
    r.prompt = job.prompt.data();
    r.prompt_length = static_cast<int32_t>(job.prompt.size());
    r.max_new_tokens = 1 + numbers.below(shape.max_positions - r.prompt_length);
    r.max_new_tokens = std::min(r.max_new_tokens, 40);
    r.temperature = temperatures[i % 3];
    r.top_k = i % 5 == 1 ? 7 : 0;
    r.top_p = i % 4 == 2 ? 0.7f : 1.0f;
    r.stop_tokens = job.stops.data();
    r.stop_token_count = i % 2;
    r.sampling_seed[0] = static_cast<uint8_t>(i);
  }
  return jobs;
}

// What the request yields by itself.
template <typename Api>
Completion alone(typename Api::Model* model, const Job& job, int32_t weights) {
  Completion c;
  const size_t room = static_cast<size_t>(job.request.max_new_tokens);
  c.tokens.resize(room);
  c.log_probs.resize(room);
  c.fingerprints.resize(room * kDims);
  cov_generate_output out = {
      c.tokens.data(), c.log_probs.data(), c.fingerprints.data(), nullptr, nullptr, 0, 0};
  cov_generate_options options = {};
  options.fingerprint = &kFingerprint;
  options.weights = weights;
  CHECK_OK(Api::generate(model, &job.request, 1, &options, &out));
  const size_t count = static_cast<size_t>(out.token_count);
  c.tokens.resize(count);
  c.log_probs.resize(count);
  c.fingerprints.resize(count * kDims);
  c.reason = out.finish_reason;
  return c;
}

using Completions = std::map<uint64_t, Completion>;

inline void take(void* context, const cov_generator_event* event) {
  Completion& c = (*static_cast<Completions*>(context))[event->request];
  CHECK(c.reason == COV_FINISH_NOT_YET);
  c.reason = event->finish_reason;
  c.status = event->status;
  if (event->finish_reason == COV_FINISH_FAILED) {
    CHECK(event->token == -1);
    return;
  }
  CHECK(event->index == static_cast<int32_t>(c.tokens.size()));
  c.tokens.push_back(event->token);
  c.log_probs.push_back(event->log_prob);
  if (event->fingerprint != nullptr)
    c.fingerprints.insert(c.fingerprints.end(), event->fingerprint, event->fingerprint + kDims);
}

inline bool begins_like(const Completion& part, const Completion& whole) {
  const size_t n = part.tokens.size();
  return n <= whole.tokens.size() &&
         std::equal(part.tokens.begin(), part.tokens.end(), whole.tokens.begin()) &&
         (n == 0 || std::memcmp(part.log_probs.data(), whole.log_probs.data(), n * 4) == 0) &&
         std::equal(part.fingerprints.begin(), part.fingerprints.end(), whole.fingerprints.begin());
}

template <typename Api>
void run_to_end(typename Api::Generator* generator, Completions& completions) {
  for (int32_t active = 1; active > 0;) {
    const cov_status status = Api::step(generator, take, &completions, &active);
    CHECK_OK(status);
    if (status.code != COV_OK) return;
  }
}

using Alone = std::function<Completion(const Job& job)>;

// Requests join at random steps, some are cancelled at random steps.
template <typename Api>
void check_schedule(typename Api::Model* model, const cov_model_shape& shape, uint32_t seed,
                    int32_t weights, const std::vector<Completion>& expected,
                    const std::vector<Job>& jobs, int32_t schedules = 1) {
  Numbers numbers(seed);
  typename Api::Generator* generator = nullptr;
  const int64_t pages_most = (shape.max_positions + 14) / 16;
  const cov_generator_options options = {weights, 1 + numbers.below(7), 1 + numbers.below(40),
                                         seed % 2 == 0 ? 0 : pages_most + numbers.below(6), 0};
  CHECK_OK(Api::create(model, &options, &generator));
  Completions completions;
  std::map<uint64_t, size_t> job_of;
  std::vector<uint64_t> cancelled;
  size_t next = 0;
  int32_t active = 0;
  for (int steps = 0; next < jobs.size() || active > 0; ++steps) {
    CHECK(steps < 5000);
    if (steps == 5000) break;
    while (next < jobs.size() && numbers.below(4) == 0) {
      uint64_t id = 0;
      CHECK_OK(Api::submit(generator, &jobs[next].request, &kFingerprint, 0, &id));
      job_of[id] = next++;
    }
    if (!job_of.empty() && numbers.below(20) == 0) {
      const uint64_t id = 1 + static_cast<uint64_t>(numbers.below(static_cast<int32_t>(next)));
      const bool ended = completions[id].reason != COV_FINISH_NOT_YET ||
                         std::count(cancelled.begin(), cancelled.end(), id) > 0;
      CHECK_CODE(Api::cancel(generator, id), ended ? COV_OUT_OF_RANGE : COV_OK);
      if (!ended) cancelled.push_back(id);
    }
    CHECK_OK(Api::step(generator, take, &completions, &active));
    const cov_generator_state state = Api::state(generator);
    CHECK(state.running + state.waiting == active);
    CHECK(options.page_limit == 0 || state.pages <= options.page_limit * schedules);
    CHECK(state.running <= options.max_batch * schedules);
  }
  for (const auto& [id, job] : job_of) {
    const bool was_cancelled = std::count(cancelled.begin(), cancelled.end(), id) > 0;
    CHECK(begins_like(completions[id], expected[job]));
    if (was_cancelled) continue;
    CHECK(completions[id].reason == expected[job].reason);
    CHECK(completions[id].tokens.size() == expected[job].tokens.size());
  }
  CHECK(Api::state(generator).pages == 0);
  Api::release(generator);
}

// Two sequences in a pool that holds hardly more than one: the younger is put off and comes back.
template <typename Api>
void check_pages_run_out(typename Api::Model* model, const cov_model_shape& shape, const Alone& alone) {
  std::vector<Job> jobs = make_jobs(shape, 3, 24);
  for (Job& job : jobs) {
    job.request.max_new_tokens = 60;
    job.request.stop_token_count = 0;
  }
  typename Api::Generator* generator = nullptr;
  const cov_generator_options options = {COV_WEIGHTS_F32, 0, 0, 8, 0};
  CHECK_OK(Api::create(model, &options, &generator));
  Completions completions;
  for (const Job& job : jobs)
    CHECK_OK(Api::submit(generator, &job.request, &kFingerprint, 0, nullptr));
  run_to_end<Api>(generator, completions);
  CHECK(Api::state(generator).preemptions > 0);
  for (size_t i = 0; i < jobs.size(); ++i) {
    const Completion expected = alone(jobs[i]);
    CHECK(completions[i + 1].tokens == expected.tokens);
    CHECK(begins_like(completions[i + 1], expected));
  }
  jobs[0].request.max_new_tokens = 8 * 16 + 2 - jobs[0].request.prompt_length;
  CHECK_CODE(Api::submit(generator, &jobs[0].request, nullptr, 0, nullptr),
             COV_MEMORY_LIMIT);
  Api::release(generator);
}

// A group computes its prompt once, however short the completions.
template <typename Api>
void check_prefix_sharing(typename Api::Model* model, const cov_model_shape& shape, const Alone& alone) {
  Numbers numbers(28);
  for (const int32_t length : {15, 16, 17, 40, 64}) {
    for (const int32_t new_tokens : {1, 5}) {
      Job job;
      job.prompt = numbers.tokens(length, shape.vocab_size);
      job.request.prompt = job.prompt.data();
      job.request.prompt_length = length;
      job.request.max_new_tokens = new_tokens;
      job.request.temperature = 1;
      typename Api::Generator* generator = nullptr;
      const cov_generator_options options = {COV_WEIGHTS_F32, 16, 0, 0, 0};
      CHECK_OK(Api::create(model, &options, &generator));
      Completions completions;
      for (int32_t i = 0; i < 8; ++i) {
        job.request.sampling_seed[1] = static_cast<uint8_t>(i);
        CHECK_OK(Api::submit(generator, &job.request, &kFingerprint, 0, nullptr));
      }
      run_to_end<Api>(generator, completions);
      const cov_generator_state state = Api::state(generator);
      // Each follower computes the prompt's last position again.
      if (length >= 17) CHECK(state.computed_rows == length + 7 + 8 * (new_tokens - 1));
      if (length >= 17) CHECK(state.shared_rows == 7 * (length - 1));
      for (int32_t i = 0; i < 8; ++i) {
        job.request.sampling_seed[1] = static_cast<uint8_t>(i);
        const Completion expected = alone(job);
        const Completion& got = completions[static_cast<uint64_t>(i) + 1];
        CHECK(got.tokens == expected.tokens && begins_like(got, expected));
      }
      Api::release(generator);
    }
  }
}

// Of a tiny_shape, with a broken row of the embedding.
inline std::vector<float> broken_parameters() {
  std::vector<float> parameters = lively_parameters(tiny_shape(), 33);
  parameters[5 * 24 + 3] = NAN;  // of token 5
  return parameters;
}

// They fail the request that meets token 5, and no other.
template <typename Api>
void check_non_finite(typename Api::Model* model, int32_t weights_count) {
  const int32_t good[3] = {1, 2, 3}, bad[3] = {1, 5, 3};
  for (int32_t weights = 0; weights < weights_count; ++weights) {
    typename Api::Generator* generator = nullptr;
    const cov_generator_options options = {weights, 0, 0, 0, 0};
    CHECK_OK(Api::create(model, &options, &generator));
    Completions completions;
    for (const int32_t* prompt : {good, bad, good}) {
      cov_generate_request request = {};
      request.prompt = prompt;
      request.prompt_length = 3;
      request.max_new_tokens = 1;
      CHECK_OK(Api::submit(generator, &request, nullptr, 0, nullptr));
    }
    run_to_end<Api>(generator, completions);
    CHECK(completions[1].reason == COV_FINISH_LENGTH && completions[3].reason == COV_FINISH_LENGTH);
    CHECK(completions[2].reason == COV_FINISH_FAILED);
    CHECK(completions[2].status.code == COV_NON_FINITE);
    Api::release(generator);
  }
}

// Requests beyond the limit are refused until others have ended, and harm nobody.
template <typename Api>
void check_request_limit(typename Api::Model* model) {
  typename Api::Generator* generator = nullptr;
  const cov_generator_options options = {COV_WEIGHTS_F32, 2, 0, 0, 3};
  CHECK_OK(Api::create(model, &options, &generator));
  const int32_t prompt[1] = {1};
  cov_generate_request request = {};
  request.prompt = prompt;
  request.prompt_length = 1;
  request.max_new_tokens = 2;
  Completions completions;
  const auto submit = [&] {
    return Api::submit(generator, &request, nullptr, 0, nullptr);
  };
  for (int round = 0; round < 3; ++round) {
    for (int i = 0; i < 3; ++i) CHECK_OK(submit());
    const cov_status refused = submit();
    CHECK(refused.code == COV_BUSY);
    CHECK(std::string(refused.message) == "3 requests are under way already, which is the limit");
    CHECK(std::string(cov_code_name(COV_BUSY)) == "BUSY");
    int32_t active = 3;
    CHECK_OK(Api::step(generator, take, &completions, &active));
    CHECK(active == 3 && submit().code == COV_BUSY);
    CHECK_OK(Api::cancel(generator, static_cast<uint64_t>(4 * round + 3)));
    CHECK_OK(submit());
    while (active > 0) CHECK_OK(Api::step(generator, take, &completions, &active));
  }
  Api::release(generator);
}

// Of a tiny_shape.
template <typename Api>
void check_bad_input(typename Api::Model* model) {
  typename Api::Generator* generator = nullptr;
  const cov_generator_options bad[] = {
      {3, 0, 0, 0, 0},  {-1, 0, 0, 0, 0}, {0, 1025, 0, 0, 0}, {0, -1, 0, 0, 0},
      {0, 0, -1, 0, 0}, {0, 0, 0, -1, 0}, {0, 0, 0, 0, -1},   {0, 0, 0, 0, (1 << 20) + 1}};
  for (const cov_generator_options& options : bad)
    CHECK_CODE(Api::create(model, &options, &generator), COV_INVALID_ARGUMENT);
  const cov_generator_options options = {};
  CHECK_CODE(Api::create(nullptr, &options, &generator), COV_INVALID_ARGUMENT);
  CHECK_OK(Api::create(model, &options, &generator));
  const int32_t prompt[2] = {1, 99};
  cov_generate_request request = {};
  request.prompt = prompt;
  request.prompt_length = 2;
  request.max_new_tokens = 1;
  CHECK_CODE(Api::submit(generator, &request, nullptr, 0, nullptr), COV_OUT_OF_RANGE);
  request.prompt_length = 1;
  CHECK_CODE(Api::submit(generator, &request, nullptr, 999, nullptr),
             COV_INVALID_ARGUMENT);
  const cov_fingerprint_options wide = {{}, 65};
  CHECK_CODE(Api::submit(generator, &request, &wide, 0, nullptr), COV_INVALID_ARGUMENT);
  CHECK_CODE(Api::submit(generator, nullptr, nullptr, 0, nullptr), COV_INVALID_ARGUMENT);
  CHECK_CODE(Api::cancel(generator, 1), COV_OUT_OF_RANGE);
  CHECK_CODE(Api::step(generator, nullptr, nullptr, nullptr), COV_INVALID_ARGUMENT);
  Completions completions;
  CHECK_OK(Api::step(generator, take, &completions, nullptr));
  CHECK(completions.empty());
  Api::release(generator);
  Api::release(nullptr);
}

}  // namespace covenant_test
