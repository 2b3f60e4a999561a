// Generation (C5): tokens per second while decoding, from the lower decile of the times of single
// steps over several runs, on both sides: on a machine that others use as well, whole runs would
// measure the others. The yardstick is transformers' generate on the same shape
// (yardsticks/generate.py). With COVENANT_BENCH_ONE_CORE=1 in the environment both sides use one
// thread and its processor time, which other load lengthens little.
#include <time.h>

#include <string>
#include <vector>

#include "covenant/generator.h"
#include "limits.h"

using namespace covenant_bench;

namespace {

struct Size {
  const char* name;
  cov_model_shape shape;
};

// vocab, hidden, feed-forward, layers, heads, kv heads, positions, tied.
const Size kSizes[] = {{"6M", {2048, 256, 704, 6, 8, 8, 512, 1, 10000.0, 1e-5}},
                       {"30M", {4096, 512, 1408, 8, 8, 8, 512, 1, 10000.0, 1e-5}}};
const char* const kTypes[] = {"f32", "bf16", "int8"};
constexpr int32_t kPrompt = 32;

bool one_core() { return std::getenv("COVENANT_BENCH_ONE_CORE") != nullptr; }

template <typename Body>
double step_time_s(const Body& body) {
  if (!one_core()) return time_s(body);
  timespec before, after;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
  body();
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
  return static_cast<double>(after.tv_sec - before.tv_sec) +
         1e-9 * static_cast<double>(after.tv_nsec - before.tv_nsec);
}

class Subject {
 public:
  explicit Subject(const Size& size) : shape_(size.shape) {
    std::vector<float> parameters(cov_parameter_count(&shape_));
    require(cov_initial_parameters(&shape_, 1, parameters.data(), parameters.size()));
    cov_model_options options = {};
    options.parameters = parameters.data();
    options.parameter_count = parameters.size();
    options.threads = one_core() ? 1 : 0;
    require(cov_model_create(&shape_, &options, &model_));
    for (int32_t type = COV_WEIGHTS_F32; type <= COV_WEIGHTS_INT8; ++type) {
      const cov_generator_options with = {type, 0, 0, 0, 0};
      pack_s_[type] =
          time_s([&] { require(cov_generator_create(model_, &with, &generators_[type])); });
    }
  }
  ~Subject() {
    for (cov_generator* generator : generators_) cov_generator_release(generator);
    cov_model_release(model_);
  }

  // `batch` completions of `new_tokens` tokens to their end; times of the steps but the first.
  void generate(int32_t type, int32_t batch, int32_t new_tokens, std::vector<double>& step_s) {
    submit(type, batch, new_tokens, false);
    int32_t active = 1;
    for (bool prefill = true; active > 0; prefill = false) {
      const double s = step_time_s([&] { step(type, &active); });
      if (!prefill) step_s.push_back(s);
    }
  }

  // Shortest time to the first token of each of 16 requests with prompts of 256 tokens.
  double prefill_s(int32_t type, bool same_prompt) {
    double best = 1e30;
    for (int i = 0; i < 5; ++i) {
      submit(type, 16, 1, same_prompt, 256);
      best = std::min(best, step_time_s([&] {
                        for (int32_t active = 1; active > 0;) step(type, &active);
                      }));
    }
    return best;
  }

  double weight_bytes(int32_t type) const {
    return static_cast<double>(cov_generator_get_state(generators_[type]).weight_bytes);
  }
  double pack_ms(int32_t type) const { return pack_s_[type] * 1e3; }

 private:
  void submit(int32_t type, int32_t batch, int32_t new_tokens, bool same_prompt,
              int32_t length = kPrompt) {
    std::vector<int32_t> prompt(static_cast<size_t>(length));
    for (int32_t i = 0; i < batch; ++i) {
      for (int32_t t = 0; t < length; ++t)
        prompt[static_cast<size_t>(t)] = ((same_prompt ? 0 : i) * 131 + t * 17 + 3) % 2000;
      cov_generate_request request = {};
      request.prompt = prompt.data();
      request.prompt_length = length;
      request.max_new_tokens = new_tokens;
      request.temperature = 1.0f;
      request.sampling_seed[0] = static_cast<uint8_t>(i);
      require(cov_generator_submit(generators_[type], &request, nullptr, 0, nullptr));
    }
  }
  void step(int32_t type, int32_t* active) {
    require(cov_generator_step(
        generators_[type], [](void*, const cov_generator_event*) {}, nullptr, active));
  }

  cov_model_shape shape_;
  cov_model* model_ = nullptr;
  cov_generator* generators_[3] = {};
  double pack_s_[3] = {};
};

double lower_decile(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 10];
}

void measure(const Options& options, const Size& size) {
  Subject subject(size);
  const int32_t new_tokens = options.quick ? 32 : 128;
  const double seconds = options.quick ? 0.3 : 2;
  for (const int32_t batch : {1, 16}) {
    const std::string id = std::string("C5.") + size.name + ".b" + std::to_string(batch);
    std::vector<double> step_s[3];
    // The types in turn, so that a neighbour's load meets all.
    const double end = now_s() + 3 * seconds;
    do {
      for (int32_t type = 0; type < 3; ++type)
        subject.generate(type, batch, new_tokens, step_s[type]);
    } while (now_s() < end);
    int32_t best = COV_WEIGHTS_F32;
    double rate[3];
    for (int32_t type = 0; type < 3; ++type) {
      const double s = lower_decile(step_s[type]);
      rate[type] = batch / s;
      if (rate[type] > rate[best]) best = type;
      char note[160];
      std::snprintf(note, sizeof note, "%.3f ms/step, %.1f MB of weights, packed once in %.0f ms",
                    s * 1e3, subject.weight_bytes(type) * 1e-6, subject.pack_ms(type));
      print(options, {.id = id + "." + kTypes[type],
                      .metric = std::string("decoding, ") + kTypes[type] + " weights",
                      .value = rate[type],
                      .unit = "tokens/s",
                      .note = note});
    }
    print(options, {.id = id,
                    .metric = "decoding, fastest type on either side",
                    .value = rate[best],
                    .unit = "tokens/s",
                    .must = 5,
                    .aim = 15,
                    .note = kTypes[best]});
  }
  const double group = subject.prefill_s(COV_WEIGHTS_BF16, true);
  const double apart = subject.prefill_s(COV_WEIGHTS_BF16, false);
  print(options, {.id = std::string("C5.") + size.name + ".group",
                  .metric = "16 first tokens, one prompt of 256",
                  .value = 16 / group,
                  .unit = "tokens/s",
                  .yardstick = "16 prompts of 256",
                  .yardstick_value = 16 / apart,
                  .ratio = apart / group});
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse(argc, argv);
  for (const Size& size : kSizes) measure(options, size);
  return 0;
}
