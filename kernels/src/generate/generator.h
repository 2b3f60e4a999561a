// Continuous batching: each step computes one row of every sequence that decodes and chunks of
// prompts that wait, and draws a token for each sequence whose rows are all there.
//
// A sequence is its prompt and the tokens drawn so far; `cached` of these positions are in pages.
// Prefill, decoding and coming back after losing the pages are all the same: compute what is not
// cached. What a sequence yields therefore depends on nothing but itself.
//
// Where pages lie and who computes rows are interfaces, so that this schedules for every device.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "core/thread_pool.h"
#include "covenant/generator.h"
#include "generate/fingerprint.h"
#include "generate/row_decoder.h"
#include "generate/sampler.h"

namespace covenant {

struct GeneratorLimits {
  int32_t batch;       // sequences that have pages at once
  int32_t step_rows;   // rows of one step, unless more sequences decode
  int64_t page_limit;  // 0: as the memory allows
  int64_t request_limit = INT64_MAX;  // that have not ended
  int64_t positions = INT64_MAX;      // of a sequence, that the decoder takes
};

// One request and its state.
struct Sequence {
  uint64_t id;
  std::vector<int32_t> tokens;  // prompt, then completion
  int64_t prompt_length;
  int32_t max_new_tokens;
  SamplerOptions sampling;
  std::vector<int32_t> stops;
  uint8_t seed[32];
  std::shared_ptr<const Fingerprint> fingerprint;  // null: none
  int32_t top_count;

  PageTable pages;
  int64_t cached = 0;
  int64_t scheduled = 0;  // rows of the step under way
  bool ended = false;     // leaves at the end of the step

  // Of the token drawn last.
  int32_t token = 0;
  float log_prob = 0;
  std::vector<int8_t> fingerprint_bytes;
  std::vector<int32_t> top_tokens;
  std::vector<float> top_log_probs;

  int64_t length() const { return static_cast<int64_t>(tokens.size()); }
  int64_t drawn() const { return length() - prompt_length; }
};

// Throws Failure when the request cannot be served by this model.
void check_request(const cov_model_shape& shape, const cov_generate_request& request,
                   int32_t top_count, int64_t index);

class Generator {
 public:
  // Called for every token, and once for a request that fails (token -1).
  using Listener = std::function<void(const cov_generator_event&)>;

  Generator(const cov_model_shape& shape, ThreadPool& threads, RowDecoder& decoder,
            PageStore& pages, const GeneratorLimits& limits);
  Generator(const Generator&) = delete;
  Generator& operator=(const Generator&) = delete;

  // Throws Failure for a request that can never run.
  uint64_t submit(const cov_generate_request& request, const cov_fingerprint_options* fingerprint,
                  int32_t top_count);
  // False when there is no such request any more.
  bool cancel(uint64_t id);
  // Does nothing when idle. A Failure leaves all requests as before the step.
  void step(const Listener& listener) {
    if (begin(listener)) end(listener);
  }
  // A step in two parts, between which nothing else is called: where the decoder computes elsewhere, several
  // generators may begin before the first one ends. False when there is nothing to end.
  bool begin(const Listener& listener);
  void end(const Listener& listener);

  bool idle() const { return running_.empty() && waiting_.empty(); }
  cov_generator_state state() const;

 private:
  using Sequences = std::vector<std::unique_ptr<Sequence>>;
  // The only running sequence gets no page.
  struct NoRoom {
    cov_status status;
  };

  void admit();
  bool share_prefix(Sequence& sequence);
  void schedule();
  bool make_room(size_t index);
  void preempt_youngest();
  void draw();
  void draw_row(const float* logits, const float* hidden, Sequence& sequence);
  void announce(const Listener& listener);
  bool finish(Sequence& sequence, const Listener& listener);
  void fail(Sequence& sequence, const cov_status& status, const Listener& listener);
  void sweep();

  cov_model_shape shape_;
  ThreadPool& threads_;
  RowDecoder& decoder_;
  GeneratorLimits limits_;
  PagePool pool_;
  DecoderRows rows_;
  uint64_t next_id_ = 1;
  bool exhausted_ = false;  // no page was left; nobody enters until a sequence has gone
  int64_t computed_rows_ = 0, shared_rows_ = 0, preemptions_ = 0;
  std::deque<std::unique_ptr<Sequence>> waiting_;
  Sequences running_;             // oldest first
  std::vector<Sequence*> ready_;  // whose next token the step under way draws, by drawn row
  std::shared_ptr<const Fingerprint> fingerprint_;  // the one used last
  cov_fingerprint_options fingerprint_options_ = {};
  // One per thread.
  std::vector<Sampler> samplers_;
  std::vector<std::vector<int32_t>> orders_;
  std::vector<std::vector<float>> normed_;
};

}  // namespace covenant
