// libFuzzer target: strangers who share a generator. The input says when requests join and are taken
// back, and how few pages and rows there are; whatever it says, everybody gets what they would have
// got alone, in order, and all pages come back.
#include <cstdlib>
#include <cstring>
#include <map>
#include <vector>

#include "covenant/generator.h"
#include "fuzz/model.h"

namespace {

constexpr int32_t kVocab = 19, kPositions = 64, kRequestsMost = 12;
constexpr cov_model_shape kShape = {kVocab, 8, 12, 1, 2, 1, kPositions, 1, 10000.0, 1e-5};

void require(bool ok) {
  if (!ok) std::abort();
}

struct Input {
  const uint8_t* data;
  size_t size;
  // 0 when it is used up.
  int32_t below(int32_t end) {
    if (size == 0) return 0;
    --size;
    return *data++ % end;
  }
};

struct Completion {
  std::vector<int32_t> tokens;
  std::vector<float> log_probs;
  bool ended = false, cancelled = false;
};

// Prompts begin alike for as long as their owners wish, so that pages are shared and then copied.
struct Request {
  int32_t length, common, other, max_new, stop, seed;
  bool operator<(const Request& b) const { return std::memcmp(this, &b, sizeof b) < 0; }
};

class Wire {
 public:
  explicit Wire(const Request& r) : prompt_(static_cast<size_t>(r.length)), stop_(r.stop) {
    for (int32_t i = 0; i < r.length; ++i)
      prompt_[static_cast<size_t>(i)] = (i * 7 + (i < r.common ? 0 : r.other)) % kVocab;
    request.prompt = prompt_.data();
    request.prompt_length = r.length;
    request.max_new_tokens = r.max_new;
    request.temperature = r.seed % 3 == 0 ? 0.0f : 1.0f;
    request.stop_tokens = &stop_;
    request.stop_token_count = r.stop < kVocab ? 1 : 0;
    request.sampling_seed[0] = static_cast<uint8_t>(r.seed);
  }
  Wire(const Wire&) = delete;
  cov_generate_request request = {};

 private:
  std::vector<int32_t> prompt_;
  int32_t stop_;
};

Request take(Input& input) {
  Request r;
  r.length = 1 + input.below(40);
  r.common = input.below(40);
  r.other = 1 + input.below(3);
  r.max_new = 1 + input.below(kPositions - r.length);
  r.stop = input.below(2 * kVocab);
  r.seed = input.below(4);
  return r;
}

// Kept, because inputs ask for the same again and again.
const Completion& alone(cov_model* model, int32_t weights, const Request& r) {
  static std::map<std::pair<int32_t, Request>, Completion> known;
  if (known.size() > 20000) known.clear();
  const auto [at, fresh] = known.try_emplace({weights, r});
  Completion& completion = at->second;
  if (!fresh) return completion;
  const Wire wire(r);
  completion.tokens.resize(static_cast<size_t>(r.max_new));
  completion.log_probs.resize(completion.tokens.size());
  cov_generate_options options = {};
  options.weights = weights;
  cov_generate_output output = {};
  output.tokens = completion.tokens.data();
  output.log_probs = completion.log_probs.data();
  require(cov_model_generate(model, &wire.request, 1, &options, &output).code == COV_OK);
  completion.tokens.resize(static_cast<size_t>(output.token_count));
  completion.log_probs.resize(completion.tokens.size());
  return completion;
}

using Completions = std::map<uint64_t, Completion>;

void listen(void* context, const cov_generator_event* event) {
  const auto at = static_cast<Completions*>(context)->find(event->request);
  require(at != static_cast<Completions*>(context)->end());
  Completion& completion = at->second;
  require(!completion.ended && !completion.cancelled && event->status.code == COV_OK);
  require(event->index == static_cast<int32_t>(completion.tokens.size()));
  completion.tokens.push_back(event->token);
  completion.log_probs.push_back(event->log_prob);
  completion.ended = event->finish_reason != COV_FINISH_NOT_YET;
}

void compare(const Completion& is, const Completion& expected) {
  const size_t count = is.tokens.size();
  require(count <= expected.tokens.size() && (is.cancelled || is.ended));
  require(is.cancelled || count == expected.tokens.size());
  if (count == 0) return;
  require(std::memcmp(is.tokens.data(), expected.tokens.data(), count * sizeof(int32_t)) == 0);
  require(std::memcmp(is.log_probs.data(), expected.log_probs.data(), count * sizeof(float)) == 0);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static cov_model* const model = covenant_fuzz::create(kShape);
  Input input{data, size};
  cov_generator_options options = {};
  options.weights = input.below(3);
  options.max_batch = 1 + input.below(6);
  options.step_rows = 1 + input.below(24);
  options.page_limit = 1 + input.below(9);
  options.request_limit = 1 + input.below(kRequestsMost);
  cov_generator* generator = nullptr;
  require(cov_generator_create(model, &options, &generator).code == COV_OK);

  Completions completions;
  std::map<uint64_t, Request> requests;
  int32_t active = 0;
  while (input.size > 0 && requests.size() < kRequestsMost) {
    switch (input.below(4)) {
      case 0: {
        const Request r = take(input);
        const Wire wire(r);
        uint64_t id = 0;
        const int32_t code = cov_generator_submit(generator, &wire.request, nullptr, 0, &id).code;
        const int64_t pages = (r.length + r.max_new + 15) / 16;
        if (code == COV_BUSY) require(active >= options.request_limit);
        if (code == COV_MEMORY_LIMIT) require(pages >= options.page_limit);
        require(code == COV_OK || code == COV_BUSY || code == COV_MEMORY_LIMIT);
        if (code != COV_OK) break;
        requests[id] = r;
        completions[id] = {};
        ++active;
        break;
      }
      case 1: {
        if (requests.empty()) break;
        auto at = completions.begin();
        std::advance(at, input.below(static_cast<int32_t>(completions.size())));
        const int32_t code = cov_generator_cancel(generator, at->first).code;
        const bool gone = at->second.ended || at->second.cancelled;
        require(code == (gone ? COV_OUT_OF_RANGE : COV_OK));
        if (gone) break;
        at->second.cancelled = true;
        --active;
        break;
      }
      case 2:
        require(cov_generator_refresh(generator).code ==
                (active == 0 ? COV_OK : COV_FAILED_PRECONDITION));
        break;
      default:
        require(cov_generator_step(generator, listen, &completions, &active).code == COV_OK);
    }
  }
  // Whoever is left comes to an end: rows of a step are few, and pages may be computed again.
  for (int32_t step = 0; active > 0; ++step) {
    require(step < 4 * kRequestsMost * kPositions * kPositions);
    require(cov_generator_step(generator, listen, &completions, &active).code == COV_OK);
  }
  require(cov_generator_get_state(generator).pages == 0);
  cov_generator_release(generator);
  for (const auto& [id, r] : requests) compare(completions[id], alone(model, options.weights, r));
  return 0;
}
