// The long-lived generator: whatever joins, leaves, is cancelled or loses its pages, every request
// yields what it yields alone; pages are bounded and given back; replay agrees under every type.
#include "schedules.h"

using namespace covenant_test;

namespace {

Completion alone(cov_model* model, const Job& job, int32_t weights) {
  return covenant_test::alone<CpuGenerator>(model, job, weights);
}

void test_schedules() {
  for (const cov_model_shape& shape : {tiny_shape(), small_shape()}) {
    TestModel model(shape, lively_parameters(shape, 21)), threaded(shape, lively_parameters(shape, 21), 3);
    const std::vector<Job> jobs = make_jobs(shape, 14, 22);
    for (int32_t weights = 0; weights < 3; ++weights) {
      std::vector<Completion> expected;
      for (const Job& job : jobs) expected.push_back(alone(model, job, weights));
      for (uint32_t seed = 1; seed <= 12; ++seed)
        check_schedule<CpuGenerator>(seed % 3 == 0 ? threaded : model, shape, seed, weights, expected, jobs);
    }
  }
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

void test_pages() {
  const cov_model_shape shape = small_shape();
  TestModel model(shape, lively_parameters(shape, 23));
  const Alone by_itself = [&](const Job& job) { return alone(model, job, COV_WEIGHTS_F32); };
  check_pages_run_out<CpuGenerator>(model, shape, by_itself);
  check_prefix_sharing<CpuGenerator>(model, shape, by_itself);
}

void test_requests() {
  const cov_model_shape shape = tiny_shape();
  TestModel model(shape, lively_parameters(shape, 35)), broken(shape, broken_parameters());
  check_non_finite<CpuGenerator>(broken, 3);
  check_request_limit<CpuGenerator>(model);
  check_bad_input<CpuGenerator>(model);
}

}  // namespace

int main() {
  test_schedules();
  test_pages();
  test_memory_limit();
  test_memory_returns();
  test_types();
  test_requests();
  TEST_MAIN_END("generate/generator");
}
