// The long-lived generator: whatever joins, leaves, is cancelled or loses its pages, every request
// yields what it yields alone; pages are bounded and given back; replay agrees under every type.
#include "covenant/generator.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <vector>

#include "../engine/support.h"

using namespace covenant_test;

namespace {

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

constexpr int32_t kDims = 4;
const cov_fingerprint_options kFingerprint = {{1, 2, 3}, kDims};

// Prompts partly begin alike, as groups and conversations do.
std::vector<Job> make_jobs(const cov_model_shape& shape, int32_t count, uint32_t seed) {
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

Completion alone(cov_model* model, const Job& job, int32_t weights) {
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
  CHECK_OK(cov_model_generate(model, &job.request, 1, &options, &out));
  const size_t count = static_cast<size_t>(out.token_count);
  c.tokens.resize(count);
  c.log_probs.resize(count);
  c.fingerprints.resize(count * kDims);
  c.reason = out.finish_reason;
  return c;
}

using Completions = std::map<uint64_t, Completion>;

void take(void* context, const cov_generator_event* event) {
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

bool begins_like(const Completion& part, const Completion& whole) {
  const size_t n = part.tokens.size();
  return n <= whole.tokens.size() &&
         std::equal(part.tokens.begin(), part.tokens.end(), whole.tokens.begin()) &&
         (n == 0 || std::memcmp(part.log_probs.data(), whole.log_probs.data(), n * 4) == 0) &&
         std::equal(part.fingerprints.begin(), part.fingerprints.end(), whole.fingerprints.begin());
}

// Requests join at random steps, some are cancelled at random steps.
void test_schedule(cov_model* model, const cov_model_shape& shape, uint32_t seed, int32_t weights,
                   const std::vector<Completion>& expected, const std::vector<Job>& jobs) {
  Numbers numbers(seed);
  cov_generator* generator = nullptr;
  const int64_t pages_most = (shape.max_positions + 14) / 16;
  const cov_generator_options options = {weights, 1 + numbers.below(7), 1 + numbers.below(40),
                                         seed % 2 == 0 ? 0 : pages_most + numbers.below(6), 0};
  CHECK_OK(cov_generator_create(model, &options, &generator));
  Completions completions;
  std::map<uint64_t, size_t> job_of;
  std::vector<uint64_t> cancelled;
  size_t next = 0;
  int32_t active = 0;
  for (int steps = 0; next < jobs.size() || active > 0; ++steps) {
    CHECK(steps < 5000);
    while (next < jobs.size() && numbers.below(4) == 0) {
      uint64_t id = 0;
      CHECK_OK(cov_generator_submit(generator, &jobs[next].request, &kFingerprint, 0, &id));
      job_of[id] = next++;
    }
    if (!job_of.empty() && numbers.below(20) == 0) {
      const uint64_t id = 1 + static_cast<uint64_t>(numbers.below(static_cast<int32_t>(next)));
      const bool ended = completions[id].reason != COV_FINISH_NOT_YET ||
                         std::count(cancelled.begin(), cancelled.end(), id) > 0;
      CHECK_CODE(cov_generator_cancel(generator, id), ended ? COV_OUT_OF_RANGE : COV_OK);
      if (!ended) cancelled.push_back(id);
    }
    CHECK_OK(cov_generator_step(generator, take, &completions, &active));
    const cov_generator_state state = cov_generator_get_state(generator);
    CHECK(state.running + state.waiting == active);
    CHECK(options.page_limit == 0 || state.pages <= options.page_limit);
    CHECK(state.running <= options.max_batch);
  }
  for (const auto& [id, job] : job_of) {
    const bool was_cancelled = std::count(cancelled.begin(), cancelled.end(), id) > 0;
    CHECK(begins_like(completions[id], expected[job]));
    if (was_cancelled) continue;
    CHECK(completions[id].reason == expected[job].reason);
    CHECK(completions[id].tokens.size() == expected[job].tokens.size());
  }
  CHECK(cov_generator_get_state(generator).pages == 0);
  cov_generator_release(generator);
}

void test_schedules() {
  for (const cov_model_shape& shape : {tiny_shape(), small_shape()}) {
    TestModel model(shape, lively_parameters(shape, 21)), threaded(shape, lively_parameters(shape, 21), 3);
    const std::vector<Job> jobs = make_jobs(shape, 14, 22);
    for (int32_t weights = 0; weights < 3; ++weights) {
      std::vector<Completion> expected;
      for (const Job& job : jobs) expected.push_back(alone(model, job, weights));
      for (uint32_t seed = 1; seed <= 12; ++seed)
        test_schedule(seed % 3 == 0 ? threaded : model, shape, seed, weights, expected, jobs);
    }
  }
}

// Two sequences in a pool that holds hardly more than one: the younger is put off and comes back.
void test_pages_run_out() {
  const cov_model_shape shape = small_shape();
  TestModel model(shape, lively_parameters(shape, 23));
  std::vector<Job> jobs = make_jobs(shape, 3, 24);
  for (Job& job : jobs) {
    job.request.max_new_tokens = 60;
    job.request.stop_token_count = 0;
  }
  cov_generator* generator = nullptr;
  const cov_generator_options options = {COV_WEIGHTS_F32, 0, 0, 8, 0};
  CHECK_OK(cov_generator_create(model, &options, &generator));
  Completions completions;
  for (const Job& job : jobs)
    CHECK_OK(cov_generator_submit(generator, &job.request, &kFingerprint, 0, nullptr));
  for (int32_t active = 1; active > 0;)
    CHECK_OK(cov_generator_step(generator, take, &completions, &active));
  CHECK(cov_generator_get_state(generator).preemptions > 0);
  for (size_t i = 0; i < jobs.size(); ++i) {
    const Completion expected = alone(model, jobs[i], COV_WEIGHTS_F32);
    CHECK(completions[i + 1].tokens == expected.tokens);
    CHECK(begins_like(completions[i + 1], expected));
  }
  jobs[0].request.max_new_tokens = 8 * 16 + 2 - jobs[0].request.prompt_length;
  CHECK_CODE(cov_generator_submit(generator, &jobs[0].request, nullptr, 0, nullptr),
             COV_MEMORY_LIMIT);
  cov_generator_release(generator);
}

// With a memory limit that leaves room for a page or two, a request fails and the next one works.
void test_memory_limit() {
  const cov_model_shape shape = small_shape();
  const std::vector<float> parameters = lively_parameters(shape, 25);
  TestModel roomy(shape, parameters);
  std::vector<Job> jobs = make_jobs(shape, 2, 26);
  jobs[0].request.max_new_tokens = shape.max_positions - jobs[0].request.prompt_length;
  jobs[0].request.stop_token_count = 0;
  jobs[1].request.max_new_tokens = 2;
  jobs[1].request.prompt_length = std::min(jobs[1].request.prompt_length, 10);
  cov_generator* generator = nullptr;
  const cov_generator_options options = {COV_WEIGHTS_F32, 1, 16, 0, 0};
  CHECK_OK(cov_generator_create(roomy, &options, &generator));
  CHECK_OK(cov_generator_submit(generator, &jobs[1].request, nullptr, 0, nullptr));
  Completions completions;
  for (int32_t active = 1; active > 0;)
    CHECK_OK(cov_generator_step(generator, take, &completions, &active));
  const uint64_t page = cov_generator_get_state(generator).page_bytes;
  // Rotary tables and scratch grow with the length: some room for them, but not for twelve pages.
  const uint64_t limit = cov_model_memory_peak_bytes(roomy) + 4 * page;
  cov_generator_release(generator);
  TestModel model(shape, parameters, 1, limit);
  CHECK_OK(cov_generator_create(model, &options, &generator));
  completions.clear();
  for (const Job& job : jobs)
    CHECK_OK(cov_generator_submit(generator, &job.request, nullptr, 0, nullptr));
  for (int32_t active = 1; active > 0;)
    CHECK_OK(cov_generator_step(generator, take, &completions, &active));
  CHECK(completions[1].reason == COV_FINISH_FAILED);
  CHECK(completions[1].status.code == COV_MEMORY_LIMIT);
  CHECK(completions[2].reason == COV_FINISH_LENGTH);
  cov_generator_release(generator);
}

// A group computes its prompt once, however short the completions.
void test_prefix_sharing() {
  const cov_model_shape shape = small_shape();
  TestModel model(shape, lively_parameters(shape, 27));
  Numbers numbers(28);
  for (const int32_t length : {15, 16, 17, 40, 64}) {
    for (const int32_t new_tokens : {1, 5}) {
      Job job;
      job.prompt = numbers.tokens(length, shape.vocab_size);
      job.request.prompt = job.prompt.data();
      job.request.prompt_length = length;
      job.request.max_new_tokens = new_tokens;
      job.request.temperature = 1;
      cov_generator* generator = nullptr;
      const cov_generator_options options = {COV_WEIGHTS_F32, 16, 0, 0, 0};
      CHECK_OK(cov_generator_create(model, &options, &generator));
      Completions completions;
      for (int32_t i = 0; i < 8; ++i) {
        job.request.sampling_seed[1] = static_cast<uint8_t>(i);
        CHECK_OK(cov_generator_submit(generator, &job.request, &kFingerprint, 0, nullptr));
      }
      for (int32_t active = 1; active > 0;)
        CHECK_OK(cov_generator_step(generator, take, &completions, &active));
      const cov_generator_state state = cov_generator_get_state(generator);
      // Each follower computes the prompt's last position again.
      if (length >= 17) CHECK(state.computed_rows == length + 7 + 8 * (new_tokens - 1));
      if (length >= 17) CHECK(state.shared_rows == 7 * (length - 1));
      for (int32_t i = 0; i < 8; ++i) {
        job.request.sampling_seed[1] = static_cast<uint8_t>(i);
        const Completion expected = alone(model, job, COV_WEIGHTS_F32);
        const Completion& got = completions[static_cast<uint64_t>(i) + 1];
        CHECK(got.tokens == expected.tokens && begins_like(got, expected));
      }
      cov_generator_release(generator);
    }
  }
}

void test_memory_returns() {
  const cov_model_shape shape = small_shape();
  TestModel model(shape, lively_parameters(shape, 29));
  const std::vector<Job> jobs = make_jobs(shape, 4, 30);
  for (const Job& job : jobs) alone(model, job, COV_WEIGHTS_INT8);
  cov_model_trim(model);
  const uint64_t before = cov_model_memory_bytes(model);
  uint64_t steady = 0;
  for (int round = 0; round < 40; ++round) {
    cov_generator* generator = nullptr;
    const cov_generator_options options = {round % 3, 0, 0, 0, 0};
    CHECK_OK(cov_generator_create(model, &options, &generator));
    Completions completions;
    for (const Job& job : jobs)
      CHECK_OK(cov_generator_submit(generator, &job.request, nullptr, 0, nullptr));
    int32_t active = 1;
    for (int i = 0; i < 5 + round && active > 0; ++i)
      CHECK_OK(cov_generator_step(generator, take, &completions, &active));
    CHECK_CODE(cov_generator_refresh(generator), active > 0 ? COV_FAILED_PRECONDITION : COV_OK);
    cov_generator_release(generator);
    CHECK(cov_model_memory_bytes(model) == before);
    for (const Job& job : jobs) alone(model, job, round % 3);
    if (round == 2) steady = cov_model_memory_bytes(model);
    if (round > 2 && round % 3 == 2) CHECK(cov_model_memory_bytes(model) == steady);
    cov_model_trim(model);
    CHECK(cov_model_memory_bytes(model) == before);
  }
}

// Under every type, replay finds the same bits; the types differ a little from each other.
void test_types() {
  const cov_model_shape shape = small_shape();
  std::vector<float> parameters(cov_parameter_count(&shape));
  CHECK_OK(cov_initial_parameters(&shape, 31, parameters.data(), parameters.size()));
  for (float& p : parameters) p = p == 1.0f ? p : p * 3.0f;
  TestModel model(shape, parameters);
  const std::vector<Job> jobs = make_jobs(shape, 10, 32);
  double error[3] = {};
  int64_t count = 0;
  for (const Job& job : jobs) {
    const Completion written = alone(model, job, COV_WEIGHTS_F32);
    for (int32_t weights = 0; weights < 3; ++weights) {
      const Completion own = alone(model, job, weights);
      for (const Completion* claimed : {&own, &written}) {
        const size_t n = claimed->tokens.size();
        std::vector<int32_t> drawn(n);
        std::vector<float> log_probs(n);
        std::vector<int8_t> fingerprints(n * kDims);
        cov_replay_request request = {};
        request.prompt = job.request.prompt;
        request.prompt_length = job.request.prompt_length;
        request.completion = claimed->tokens.data();
        request.completion_length = static_cast<int32_t>(n);
        request.temperature = job.request.temperature;
        request.top_k = job.request.top_k;
        request.top_p = job.request.top_p;
        std::memcpy(request.sampling_seed, job.request.sampling_seed, 32);
        const cov_replay_output out = {drawn.data(), nullptr, log_probs.data(),
                                       fingerprints.data()};
        const cov_replay_options options = {&kFingerprint, nullptr, weights};
        CHECK_OK(cov_model_replay(model, &request, 1, &options, &out));
        if (claimed == &own) {
          CHECK(drawn == own.tokens);
          CHECK(std::memcmp(log_probs.data(), own.log_probs.data(), n * 4) == 0);
          CHECK(fingerprints == own.fingerprints);
        } else {
          for (size_t t = 0; t < n; ++t)
            error[weights] += std::fabs(static_cast<double>(log_probs[t] - written.log_probs[t]));
          if (weights == 0) count += static_cast<int64_t>(n);
        }
      }
    }
  }
  for (double& e : error) e /= static_cast<double>(count);
  std::printf("mean error of a log-probability: bf16 %.5f, int8 %.5f\n", error[1], error[2]);
  CHECK(error[0] == 0);
  CHECK(error[1] > 1e-5 && error[1] < 0.01);
  CHECK(error[2] > 1e-4 && error[2] < 0.05);
}

// A broken row of the embedding fails the request that meets it, and no other.
void test_non_finite() {
  const cov_model_shape shape = tiny_shape();
  std::vector<float> parameters = lively_parameters(shape, 33);
  parameters[5 * 24 + 3] = NAN;  // of token 5
  TestModel model(shape, parameters);
  const int32_t good[3] = {1, 2, 3}, bad[3] = {1, 5, 3};
  for (int32_t weights = 0; weights < 3; ++weights) {
    cov_generator* generator = nullptr;
    const cov_generator_options options = {weights, 0, 0, 0, 0};
    CHECK_OK(cov_generator_create(model, &options, &generator));
    Completions completions;
    for (const int32_t* prompt : {good, bad, good}) {
      cov_generate_request request = {};
      request.prompt = prompt;
      request.prompt_length = 3;
      request.max_new_tokens = 1;
      CHECK_OK(cov_generator_submit(generator, &request, nullptr, 0, nullptr));
    }
    for (int32_t active = 1; active > 0;)
      CHECK_OK(cov_generator_step(generator, take, &completions, &active));
    CHECK(completions[1].reason == COV_FINISH_LENGTH && completions[3].reason == COV_FINISH_LENGTH);
    CHECK(completions[2].reason == COV_FINISH_FAILED);
    CHECK(completions[2].status.code == COV_NON_FINITE);
    cov_generator_release(generator);
  }
}

// Requests beyond the limit are refused until others have ended, and harm nobody.
void test_request_limit() {
  const cov_model_shape shape = tiny_shape();
  TestModel model(shape, lively_parameters(shape, 35));
  cov_generator* generator = nullptr;
  const cov_generator_options options = {COV_WEIGHTS_F32, 2, 0, 0, 3};
  CHECK_OK(cov_generator_create(model, &options, &generator));
  const int32_t prompt[1] = {1};
  cov_generate_request request = {};
  request.prompt = prompt;
  request.prompt_length = 1;
  request.max_new_tokens = 2;
  Completions completions;
  const auto submit = [&] {
    return cov_generator_submit(generator, &request, nullptr, 0, nullptr);
  };
  for (int round = 0; round < 3; ++round) {
    for (int i = 0; i < 3; ++i) CHECK_OK(submit());
    const cov_status refused = submit();
    CHECK(refused.code == COV_BUSY);
    CHECK(std::string(refused.message) == "3 requests are under way already, which is the limit");
    CHECK(std::string(cov_code_name(COV_BUSY)) == "BUSY");
    int32_t active = 3;
    CHECK_OK(cov_generator_step(generator, take, &completions, &active));
    CHECK(active == 3 && submit().code == COV_BUSY);
    CHECK_OK(cov_generator_cancel(generator, static_cast<uint64_t>(4 * round + 3)));
    CHECK_OK(submit());
    while (active > 0) CHECK_OK(cov_generator_step(generator, take, &completions, &active));
  }
  cov_generator_release(generator);
}

void test_bad_input() {
  const cov_model_shape shape = tiny_shape();
  TestModel model(shape, lively_parameters(shape, 34));
  cov_generator* generator = nullptr;
  const cov_generator_options bad[] = {
      {3, 0, 0, 0, 0},  {-1, 0, 0, 0, 0}, {0, 1025, 0, 0, 0}, {0, -1, 0, 0, 0},
      {0, 0, -1, 0, 0}, {0, 0, 0, -1, 0}, {0, 0, 0, 0, -1},   {0, 0, 0, 0, (1 << 20) + 1}};
  for (const cov_generator_options& options : bad)
    CHECK_CODE(cov_generator_create(model, &options, &generator), COV_INVALID_ARGUMENT);
  const cov_generator_options options = {};
  CHECK_CODE(cov_generator_create(nullptr, &options, &generator), COV_INVALID_ARGUMENT);
  CHECK_OK(cov_generator_create(model, &options, &generator));
  const int32_t prompt[2] = {1, 99};
  cov_generate_request request = {};
  request.prompt = prompt;
  request.prompt_length = 2;
  request.max_new_tokens = 1;
  CHECK_CODE(cov_generator_submit(generator, &request, nullptr, 0, nullptr), COV_OUT_OF_RANGE);
  request.prompt_length = 1;
  CHECK_CODE(cov_generator_submit(generator, &request, nullptr, 999, nullptr),
             COV_INVALID_ARGUMENT);
  const cov_fingerprint_options wide = {{}, 65};
  CHECK_CODE(cov_generator_submit(generator, &request, &wide, 0, nullptr), COV_INVALID_ARGUMENT);
  CHECK_CODE(cov_generator_submit(generator, nullptr, nullptr, 0, nullptr), COV_INVALID_ARGUMENT);
  CHECK_CODE(cov_generator_cancel(generator, 1), COV_OUT_OF_RANGE);
  CHECK_CODE(cov_generator_step(generator, nullptr, nullptr, nullptr), COV_INVALID_ARGUMENT);
  Completions completions;
  CHECK_OK(cov_generator_step(generator, take, &completions, nullptr));
  CHECK(completions.empty());
  cov_generator_release(generator);
  cov_generator_release(nullptr);
}

}  // namespace

int main() {
  test_schedules();
  test_pages_run_out();
  test_memory_limit();
  test_prefix_sharing();
  test_memory_returns();
  test_types();
  test_non_finite();
  test_request_limit();
  test_bad_input();
  TEST_MAIN_END("generate/generator");
}
