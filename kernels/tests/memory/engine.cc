// Every allocation that a model makes fails once, and then all from there on: the call says
// COV_OUT_OF_MEMORY, harms nothing, loses nothing, and works when it is made again.
#include "failing.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "../engine/support.h"
#include "covenant/generator.h"
#include "covenant/lora.h"

using namespace covenant_test;

namespace {

constexpr cov_adamw_options kAdamw = {1e-2f, 0.9f, 0.95f, 1e-8f, 0.1f, 1.0f};
constexpr int32_t kSequences = 3, kLength = 10, kNew = 5, kRequests = 3;

// A model with all that a call reads or writes; nothing below allocates during a call.
struct Fixture {
  cov_model_shape shape = tiny_shape();
  std::vector<float> initial = lively_parameters(shape, 5);
  int threads = 1;
  cov_compute compute = COV_COMPUTE_F32;
  cov_weight_type weights = COV_WEIGHTS_F32;
  std::unique_ptr<TestModel> model;
  std::vector<int32_t> tokens, targets, written, drawn;
  std::vector<float> log_probs, said, coefficients;
  std::vector<int8_t> prints;
  cov_batch batch = {};
  std::vector<cov_generate_request> requests;
  std::vector<cov_generate_output> outputs;
  cov_fingerprint_options fingerprint = {{9}, 8};
  double loss = 0;

  Fixture() {
    Numbers numbers(6);
    tokens = numbers.tokens(kSequences * kLength, shape.vocab_size);
    targets = numbers.tokens(kSequences * kLength, shape.vocab_size);
    batch = {tokens.data(), targets.data(), kSequences, kLength};
    log_probs.resize(tokens.size());
    coefficients.assign(tokens.size(), -0.1f);
    written.resize(kRequests * kNew);
    said.resize(written.size());
    prints.resize(written.size() * 8);
    drawn.resize(kNew);
    for (int32_t i = 0; i < kRequests; ++i) {
      cov_generate_request request = {};
      request.prompt = tokens.data() + i;
      request.prompt_length = 3 + i;
      request.max_new_tokens = kNew;
      request.temperature = 0.8f;
      request.top_k = 10;
      request.top_p = 0.9f;
      request.sampling_seed[0] = static_cast<uint8_t>(i);
      requests.push_back(request);
      cov_generate_output output = {};
      output.tokens = written.data() + i * kNew;
      output.log_probs = said.data() + i * kNew;
      output.fingerprints = prints.data() + i * kNew * 8;
      outputs.push_back(output);
    }
  }

  void fresh() {
    model.reset();
    model = std::make_unique<TestModel>(shape, initial, threads, 0, compute);
  }
  bool parameters_are(const std::vector<float>& expected) const {
    return std::memcmp(model->buffer(COV_PARAMETERS), expected.data(),
                       expected.size() * sizeof(float)) == 0;
  }
  std::vector<float> parameters() const {
    const float* data = model->buffer(COV_PARAMETERS);
    return {data, data + initial.size()};
  }
  cov_status forward() {
    cov_forward_options options = {};
    options.keep_activations = 1;
    options.temperature = 1.0f;
    cov_forward_output output = {};
    output.log_probs = log_probs.data();
    return cov_model_forward(*model, &batch, &options, &output);
  }
  cov_status backward() {
    return cov_model_backward(*model, coefficients.data(), coefficients.size());
  }
  cov_status generate() {
    cov_generate_options options = {};
    options.fingerprint = &fingerprint;
    options.max_batch = 2;
    options.weights = weights;
    return cov_model_generate(*model, requests.data(), kRequests, &options, outputs.data());
  }
  cov_status replay() {
    cov_replay_request request = {};
    request.prompt = requests[0].prompt;
    request.prompt_length = requests[0].prompt_length;
    request.completion = written.data();
    request.completion_length = kNew;
    request.temperature = requests[0].temperature;
    request.top_k = requests[0].top_k;
    request.top_p = requests[0].top_p;
    std::memcpy(request.sampling_seed, requests[0].sampling_seed, 32);
    cov_replay_output output = {};
    output.drawn = drawn.data();
    const cov_replay_options options = {&fingerprint, nullptr, weights};
    return cov_model_replay(*model, &request, 1, &options, &output);
  }
};

void test_creation(int threads) {
  Fixture f;
  cov_model* model = nullptr;
  cov_model_options options = {};
  options.parameters = f.initial.data();
  options.parameter_count = f.initial.size();
  options.threads = threads;
  run({"create",
       [&] {
         cov_model_release(model);
         model = nullptr;
       },
       [&] { return cov_model_create(&f.shape, &options, &model); }, [&] { return model == nullptr; },
       [&] { return model != nullptr; }});
  cov_model_release(model);
}

void test_training(int threads, cov_compute compute) {
  Fixture f;
  f.threads = threads;
  f.compute = compute;
  const auto same_parameters = [&] { return f.parameters_are(f.initial); };
  f.fresh();
  CHECK_OK(cov_model_train_step(*f.model, &f.batch, &kAdamw, &f.loss, nullptr));
  const std::vector<float> trained = f.parameters();
  run({"train step", [&] { f.fresh(); },
       [&] { return cov_model_train_step(*f.model, &f.batch, &kAdamw, &f.loss, nullptr); },
       same_parameters, [&] { return f.parameters_are(trained); }});

  f.fresh();
  CHECK_OK(f.forward());
  const std::vector<float> expected = f.log_probs;
  run({"forward", [&] { f.fresh(); }, [&] { return f.forward(); }, same_parameters,
       [&] { return f.log_probs == expected; }});

  CHECK_OK(f.backward());
  const float* gradients = f.model->buffer(COV_GRADIENTS);
  const std::vector<float> wanted(gradients, gradients + f.initial.size());
  bool kept = true;
  run({"backward",
       [&] {
         f.fresh();
         CHECK_OK(f.forward());
         kept = true;
       },
       [&] {
         // A failed backward may have consumed the kept activations and part of the sums.
         if (!kept) {
           std::memset(f.model->buffer(COV_GRADIENTS), 0, f.initial.size() * sizeof(float));
           if (const cov_status again = f.forward(); again.code != COV_OK) return again;
         }
         kept = false;
         return f.backward();
       },
       same_parameters,
       [&] {
         return std::memcmp(f.model->buffer(COV_GRADIENTS), wanted.data(),
                            wanted.size() * sizeof(float)) == 0;
       }});

  const auto step = [&] { return cov_model_optimizer_step(*f.model, &kAdamw, nullptr); };
  const auto with_gradients = [&] {
    f.fresh();
    std::memcpy(f.model->buffer(COV_GRADIENTS), wanted.data(), wanted.size() * sizeof(float));
  };
  with_gradients();
  CHECK_OK(step());
  const std::vector<float> stepped = f.parameters();
  run({"optimizer step", with_gradients, step,
       [&] { return same_parameters() && cov_model_step_count(*f.model) == 0; },
       [&] { return f.parameters_are(stepped) && cov_model_step_count(*f.model) == 1; }});
}

// Adapters: a refused allocation anywhere leaves base and adapters as they were.
void test_lora(int threads, cov_compute compute) {
  Fixture f;
  f.threads = threads;
  f.compute = compute;
  cov_lora* lora = nullptr;
  const auto prepare = [&] {
    cov_lora_release(lora);
    lora = nullptr;
    f.fresh();
  };
  const auto work = [&]() -> cov_status {
    const cov_lora_options options = {3, 2.0f, 127, 5};
    if (lora == nullptr) {
      const cov_status created = cov_lora_create(*f.model, &options, &lora);
      if (created.code != COV_OK) return created;
      if (cov_model_use_lora(*f.model, lora).code != COV_OK) std::abort();
    }
    if (cov_lora_step_count(lora) == 0) {
      const cov_status stepped =
          cov_model_train_step(*f.model, &f.batch, &kAdamw, &f.loss, nullptr);
      if (stepped.code != COV_OK) return stepped;
    }
    const cov_status merged = cov_lora_merge(lora, 1);
    return merged.code == COV_OK ? cov_lora_unmerge(lora) : merged;
  };
  const auto values = [&] {
    float* data = nullptr;
    uint64_t length = 0;
    CHECK_OK(cov_lora_buffer(lora, COV_PARAMETERS, &data, &length));
    return std::vector<float>(data, data + length);
  };
  prepare();
  CHECK_OK(work());
  const std::vector<float> expected = values();
  run({"adapters", prepare, work, [&] { return f.parameters_are(f.initial); },
       [&] { return values() == expected && f.parameters_are(f.initial); }});
  cov_lora_release(lora);
}

void test_generation(int threads, cov_weight_type weights) {
  Fixture f;
  f.threads = threads;
  f.weights = weights;
  f.fresh();
  CHECK_OK(f.generate());
  const std::vector<int32_t> expected = f.written;
  const std::vector<int8_t> prints = f.prints;
  run({"generate", [&] { f.fresh(); }, [&] { return f.generate(); },
       [&] { return f.parameters_are(f.initial); },
       [&] { return f.written == expected && f.prints == prints; }});
  f.written = expected;
  run({"replay",
       [&] {
         f.fresh();
         f.drawn.assign(kNew, -1);
       },
       [&] { return f.replay(); }, [&] { return f.parameters_are(f.initial); },
       [&] { return std::memcmp(f.drawn.data(), expected.data(), kNew * sizeof(int32_t)) == 0; }});
}

struct Token {
  uint64_t request;
  int32_t index, token;
};

// The tokens of each request in turn. A request that gave its pages up comes later than its
// neighbours, with the same tokens.
std::vector<int32_t> by_request(std::vector<Token> tokens) {
  std::sort(tokens.begin(), tokens.end(), [](const Token& a, const Token& b) {
    return a.request != b.request ? a.request < b.request : a.index < b.index;
  });
  std::vector<int32_t> all;
  for (const Token& token : tokens) all.push_back(token.token);
  return all;
}

// A step that fails leaves all requests as they were: the generator goes on, to the same tokens.
void test_generator(int threads, cov_weight_type weights) {
  Fixture f;
  f.threads = threads;
  cov_generator* generator = nullptr;
  std::vector<Token> tokens;
  tokens.reserve(kRequests * kNew);
  cov_generator_options options = {};
  options.weights = weights;
  options.max_batch = 2;
  const auto prepare = [&] {
    cov_generator_release(generator);
    generator = nullptr;
    tokens.clear();
    f.fresh();
  };
  const auto finish = [&]() -> cov_status {
    if (generator == nullptr) {
      const cov_status created = cov_generator_create(*f.model, &options, &generator);
      if (created.code != COV_OK) return created;
    }
    cov_generator_state state = cov_generator_get_state(generator);
    // Requests that were taken stay; those that were refused are handed in again.
    for (size_t i = static_cast<size_t>(state.running + state.waiting);
         tokens.empty() && i < f.requests.size(); ++i) {
      uint64_t id = 0;
      const cov_status taken =
          cov_generator_submit(generator, &f.requests[i], &f.fingerprint, 0, &id);
      if (taken.code != COV_OK) return taken;
    }
    for (int32_t active = 1; active > 0;) {
      const cov_status stepped = cov_generator_step(
          generator,
          [](void* context, const cov_generator_event* event) {
            static_cast<std::vector<Token>*>(context)->push_back(
                {event->request, event->index, event->token});
          },
          &tokens, &active);
      if (stepped.code != COV_OK) return stepped;
    }
    return cov_ok();
  };
  prepare();
  CHECK_OK(finish());
  const std::vector<int32_t> expected = by_request(tokens);
  CHECK(expected.size() == kRequests * kNew);
  run({"generator", prepare, finish, [&] { return f.parameters_are(f.initial); },
       [&] { return by_request(tokens) == expected; }});
  cov_generator_release(generator);
}

}  // namespace

int main() {
  const int64_t before = live.load();
  for (const int threads : {1, 3}) {
    test_creation(threads);
    for (const cov_compute compute : {COV_COMPUTE_F32, COV_COMPUTE_BF16}) {
      test_training(threads, compute);
      test_lora(threads, compute);
    }
    for (const cov_weight_type weights : {COV_WEIGHTS_F32, COV_WEIGHTS_BF16, COV_WEIGHTS_INT8}) {
      test_generation(threads, weights);
      test_generator(threads, weights);
    }
  }
  CHECK(live.load() == before);
  TEST_MAIN_END("memory/engine");
}
