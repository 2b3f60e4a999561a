// Generation and replay agree: a prefill finds the tokens, log-probs and fingerprints that decoding
// reported, bit for bit, whatever the batch, thread count or CPU path.
#include <algorithm>
#include <vector>

#include "support.h"

using namespace covenant_test;

namespace {

constexpr int32_t kDims = 8;
constexpr int32_t kTop = 3;

struct Result {
  std::vector<int32_t> tokens, top_tokens;
  std::vector<float> log_probs, top_log_probs;
  std::vector<int8_t> fingerprints;
  int32_t count = 0, reason = -1;
};

struct Job {
  std::vector<std::vector<int32_t>> prompts;
  std::vector<cov_generate_request> requests;
};

// Requests of different lengths, temperatures and filters.
Job make_job(const cov_model_shape& shape, int32_t count, int32_t max_new) {
  Numbers numbers(5);
  Job job;
  job.prompts.reserve(static_cast<size_t>(count));
  const float temperatures[] = {1.0f, 0.7f, 0.0f, 1.3f};
  for (int32_t i = 0; i < count; ++i) {
    job.prompts.push_back(numbers.tokens(1 + (i * 7) % 23, shape.vocab_size));
    cov_generate_request request = {};
    request.prompt = job.prompts.back().data();
    request.prompt_length = static_cast<int32_t>(job.prompts.back().size());
    request.max_new_tokens = max_new - i % 5;
    request.temperature = temperatures[i % 4];
    request.top_k = i % 3 == 1 ? 9 : 0;
    request.top_p = i % 3 == 2 ? 0.8f : 1.0f;
    for (int b = 0; b < 32; ++b) request.sampling_seed[b] = static_cast<uint8_t>(i * 13 + b);
    job.requests.push_back(request);
  }
  return job;
}

cov_fingerprint_options fingerprint_options() {
  cov_fingerprint_options options = {};
  for (int b = 0; b < 32; ++b) options.seed[b] = static_cast<uint8_t>(200 - b);
  options.dims = kDims;
  return options;
}

struct Seen {
  std::vector<std::vector<int32_t>> tokens;
};
void on_token(void* context, int32_t request, int32_t index, int32_t token, float log_prob) {
  Seen& seen = *static_cast<Seen*>(context);
  CHECK(static_cast<size_t>(index) == seen.tokens[static_cast<size_t>(request)].size());
  CHECK(log_prob <= 0.0f);
  seen.tokens[static_cast<size_t>(request)].push_back(token);
}

std::vector<Result> generate(cov_model* model, const Job& job, int32_t max_batch,
                             int32_t weights = COV_WEIGHTS_F32) {
  const size_t n = job.requests.size();
  std::vector<Result> results(n);
  std::vector<cov_generate_output> outputs(n);
  for (size_t i = 0; i < n; ++i) {
    const size_t room = static_cast<size_t>(job.requests[i].max_new_tokens);
    Result& r = results[i];
    r.tokens.resize(room);
    r.log_probs.resize(room);
    r.fingerprints.resize(room * kDims);
    r.top_tokens.resize(room * kTop);
    r.top_log_probs.resize(room * kTop);
    outputs[i] = {r.tokens.data(),
                  r.log_probs.data(),
                  r.fingerprints.data(),
                  r.top_tokens.data(),
                  r.top_log_probs.data(),
                  -1,
                  -1};
  }
  const cov_fingerprint_options fingerprint = fingerprint_options();
  Seen seen;
  seen.tokens.resize(n);
  const cov_generate_options options = {&fingerprint, kTop, max_batch, on_token,
                                        &seen,        nullptr, weights};
  CHECK_OK(cov_model_generate(model, job.requests.data(), static_cast<int32_t>(n), &options,
                              outputs.data()));
  for (size_t i = 0; i < n; ++i) {
    Result& r = results[i];
    r.count = outputs[i].token_count;
    r.reason = outputs[i].finish_reason;
    const size_t count = static_cast<size_t>(r.count);
    r.tokens.resize(count);
    r.log_probs.resize(count);
    r.fingerprints.resize(count * kDims);
    r.top_tokens.resize(count * kTop);
    r.top_log_probs.resize(count * kTop);
    CHECK(seen.tokens[i] == r.tokens);
  }
  return results;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

void check_same(const std::vector<Result>& a, const std::vector<Result>& b) {
  CHECK(a.size() == b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    CHECK(a[i].tokens == b[i].tokens);
    CHECK(same_bits(a[i].log_probs, b[i].log_probs));
    CHECK(a[i].fingerprints == b[i].fingerprints);
    CHECK(a[i].top_tokens == b[i].top_tokens);
    CHECK(same_bits(a[i].top_log_probs, b[i].top_log_probs));
    CHECK(a[i].reason == b[i].reason);
  }
}

struct Replayed {
  std::vector<int32_t> drawn;
  std::vector<float> margin, log_probs;
  std::vector<int8_t> fingerprints;
};

std::vector<Replayed> replay(cov_model* model, const Job& job, const std::vector<Result>& results,
                             int32_t weights = COV_WEIGHTS_F32) {
  const size_t n = results.size();
  std::vector<Replayed> replayed(n);
  std::vector<cov_replay_request> requests(n);
  std::vector<cov_replay_output> outputs(n);
  for (size_t i = 0; i < n; ++i) {
    const cov_generate_request& g = job.requests[i];
    const size_t count = results[i].tokens.size();
    Replayed& r = replayed[i];
    r.drawn.assign(count, -1);
    r.margin.assign(count, -1.0f);
    r.log_probs.assign(count, 1.0f);
    r.fingerprints.assign(count * kDims, 0);
    requests[i] = {g.prompt,
                   g.prompt_length,
                   results[i].tokens.data(),
                   static_cast<int32_t>(count),
                   g.temperature,
                   g.top_k,
                   g.top_p,
                   {}};
    std::memcpy(requests[i].sampling_seed, g.sampling_seed, 32);
    outputs[i] = {r.drawn.data(), r.margin.data(), r.log_probs.data(), r.fingerprints.data()};
  }
  const cov_fingerprint_options fingerprint = fingerprint_options();
  const cov_replay_options options = {&fingerprint, nullptr, weights};
  CHECK_OK(cov_model_replay(model, requests.data(), static_cast<int32_t>(n), &options,
                            outputs.data()));
  return replayed;
}

void check_replay(const std::vector<Result>& results, const std::vector<Replayed>& replayed) {
  for (size_t i = 0; i < results.size(); ++i) {
    CHECK(replayed[i].drawn == results[i].tokens);
    CHECK(same_bits(replayed[i].log_probs, results[i].log_probs));
    CHECK(replayed[i].fingerprints == results[i].fingerprints);
    for (float margin : replayed[i].margin) CHECK(margin > 0.0f);
  }
}

void test_agreement(const cov_model_shape& shape, int32_t max_new) {
  const std::vector<float> parameters = lively_parameters(shape, 11);
  TestModel model(shape, parameters), threaded(shape, parameters, 3);
  const Job job = make_job(shape, 16, max_new);
  const std::vector<Result> alone = generate(model, job, 1);
  check_replay(alone, replay(model, job, alone));
  check_replay(alone, replay(threaded, job, alone));
  for (const int32_t batch : {3, 16}) check_same(alone, generate(model, job, batch));
  check_same(alone, generate(threaded, job, 16));
  for (const std::string& path : available_paths()) {
    CHECK_OK(cov_set_cpu_path(path.c_str()));
    check_same(alone, generate(model, job, 5));
    check_replay(alone, replay(model, job, alone));
  }
  cov_set_cpu_path(nullptr);
  // Different prompts do not all give the same text and fingerprint.
  CHECK(alone[0].tokens != alone[3].tokens);
  CHECK(alone[0].fingerprints != alone[3].fingerprints);
  for (const Result& result : alone) {
    CHECK(result.reason == COV_FINISH_LENGTH);
    CHECK(*std::max_element(result.fingerprints.begin(), result.fingerprints.end()) > 4);
  }
}

// A cheat shows: another token, another seed, other weights.
void test_replay_detects() {
  const cov_model_shape shape = small_shape();
  std::vector<float> parameters = lively_parameters(shape, 12);
  TestModel model(shape, parameters);
  Job job = make_job(shape, 1, 40);
  std::vector<Result> results = generate(model, job, 1);
  const Replayed honest = replay(model, job, results)[0];
  std::vector<Result> forged = results;
  forged[0].tokens[20] = (forged[0].tokens[20] + 1) % shape.vocab_size;
  const Replayed other = replay(model, job, forged)[0];
  CHECK(other.drawn[20] == results[0].tokens[20]);
  CHECK(other.margin[20] == 0.0f);
  CHECK(std::equal(other.drawn.begin(), other.drawn.begin() + 20, honest.drawn.begin()));
  job.requests[0].sampling_seed[3] ^= 1;
  const Replayed reseeded = replay(model, job, results)[0];
  CHECK(reseeded.drawn != honest.drawn);
  CHECK(reseeded.fingerprints == honest.fingerprints);
  job.requests[0].sampling_seed[3] ^= 1;
  for (float& p : parameters) p += 0.02f;
  TestModel changed(shape, parameters);
  CHECK(replay(changed, job, results)[0].fingerprints != honest.fingerprints);
}

void test_stop_and_greedy() {
  const cov_model_shape shape = tiny_shape();
  TestModel model(shape, lively_parameters(shape, 13));
  Job job = make_job(shape, 4, 30);
  const std::vector<Result> free_run = generate(model, job, 4);
  // Stop at a token each completion is known to contain.
  std::vector<int32_t> stops;
  for (const Result& result : free_run) stops.push_back(result.tokens[6]);
  for (size_t i = 0; i < 4; ++i) {
    job.requests[i].stop_tokens = &stops[i];
    job.requests[i].stop_token_count = 1;
  }
  const std::vector<Result> stopped = generate(model, job, 2);
  for (size_t i = 0; i < 4; ++i) {
    CHECK(stopped[i].reason == COV_FINISH_STOP);
    CHECK(stopped[i].count <= 7);
    CHECK(stopped[i].tokens.back() == stops[i]);
    CHECK(std::count(stopped[i].tokens.begin(), stopped[i].tokens.end(), stops[i]) == 1);
    CHECK(
        std::equal(stopped[i].tokens.begin(), stopped[i].tokens.end(), free_run[i].tokens.begin()));
  }
  // Request 2 has temperature 0: every token is the most probable one.
  for (int32_t t = 0; t < free_run[2].count; ++t) {
    const size_t at = static_cast<size_t>(t);
    CHECK(free_run[2].tokens[at] == free_run[2].top_tokens[at * kTop]);
    CHECK(free_run[2].log_probs[at] == free_run[2].top_log_probs[at * kTop]);
  }
}

void stop_after_five(void* context, int32_t, int32_t index, int32_t, float) {
  if (index == 4) *static_cast<int32_t*>(context) = 1;
}

void test_cancel() {
  const cov_model_shape shape = tiny_shape();
  TestModel model(shape, lively_parameters(shape, 14));
  const Job job = make_job(shape, 1, 40);
  int32_t cancel = 0;
  std::vector<int32_t> tokens(64);
  cov_generate_output output = {tokens.data(), nullptr, nullptr, nullptr, nullptr, 0, 0};
  const cov_generate_options options = {nullptr, 0, 0, stop_after_five, &cancel, &cancel, 0};
  CHECK_CODE(cov_model_generate(model, job.requests.data(), 1, &options, &output), COV_CANCELLED);
  CHECK(output.token_count == 5);
}

// The sampler follows the probabilities: frequencies over many seeds are near the reported ones.
void test_distribution() {
  const cov_model_shape shape = tiny_shape();
  TestModel model(shape, lively_parameters(shape, 15));
  constexpr int32_t kDraws = 4000;
  const int32_t prompt[3] = {1, 2, 3};
  std::vector<cov_generate_request> requests(kDraws);
  std::vector<int32_t> tokens(kDraws);
  std::vector<float> log_probs(kDraws);
  std::vector<cov_generate_output> outputs(kDraws);
  for (int32_t i = 0; i < kDraws; ++i) {
    const size_t at = static_cast<size_t>(i);
    requests[at] = {prompt,  3, 1,
                    1.0f,    0, 1.0f,
                    nullptr, 0, {static_cast<uint8_t>(i), static_cast<uint8_t>(i >> 8)}};
    outputs[at] = {&tokens[at], &log_probs[at], nullptr, nullptr, nullptr, 0, 0};
  }
  const cov_generate_options options = {nullptr, 0, 100, nullptr, nullptr, nullptr, 0};
  CHECK_OK(cov_model_generate(model, requests.data(), kDraws, &options, outputs.data()));
  std::vector<int32_t> counts(static_cast<size_t>(shape.vocab_size));
  for (size_t i = 0; i < tokens.size(); ++i) ++counts[static_cast<size_t>(tokens[i])];
  for (size_t i = 0; i < tokens.size(); ++i) {
    const double p = std::exp(static_cast<double>(log_probs[i]));
    const double sigma = std::sqrt(p * (1 - p) * kDraws);
    CHECK_NEAR(counts[static_cast<size_t>(tokens[i])], p * kDraws, 5 * sigma + 1);
  }
}

}  // namespace

int main() {
  test_agreement(tiny_shape(), 30);
  test_agreement(small_shape(), 60);
  test_replay_detects();
  test_stop_and_greedy();
  test_cancel();
  test_distribution();
  TEST_MAIN_END("engine/generate");
}
