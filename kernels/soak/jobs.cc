#include "jobs.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "covenant/hash.h"

namespace covenant_soak {

namespace {

constexpr cov_adamw_options kAdamw = {1e-3f, 0.9f, 0.95f, 1e-8f, 0.1f, 1.0f};

// Odd sizes among them: nothing here is a multiple of a tile by accident.
constexpr cov_model_shape kShapes[] = {
    {37, 24, 20, 2, 4, 2, 96, 0, 10000.0, 1e-5},
    {256, 64, 160, 3, 2, 1, 192, 1, 10000.0, 1e-5},
    {509, 96, 258, 2, 6, 3, 128, 0, 10000.0, 1e-5},
    {512, 128, 352, 4, 4, 4, 128, 1, 500000.0, 1e-6},
};

}  // namespace

const std::vector<Worker::Job>& Worker::jobs() {
  static const std::vector<Job> all = {
      {"train", 30, &Worker::train},
      {"forward and backward", 10, &Worker::forward_and_backward},
      {"generate and replay", 20, &Worker::generate_and_replay},
      {"generate and cancel", 8, &Worker::generate_and_cancel},
      {"join and leave", 8, &Worker::join_and_leave},
      {"compress and merge", 15, &Worker::compress_and_merge},
      {"update at once", 8, &Worker::update_at_once},
      {"decode damaged", 8, &Worker::decode_damaged},
      {"hash", 8, &Worker::hash},
      {"adapters", 8, &Worker::adapters},
      {"deltas", 8, &Worker::deltas},
      {"activations", 6, &Worker::activations},
      {"projections", 6, &Worker::projections},
      {"exceed memory", 6, &Worker::exceed_memory},
      {"bad arguments", 4, &Worker::bad_arguments},
      {"trim", 3, &Worker::trim},
      {"recreate", 6, &Worker::recreate},
  };
  return all;
}

const Worker::Job& Worker::choose() {
  int total = 0;
  for (const Job& job : jobs()) total += job.weight;
  int at = below(total);
  for (const Job& job : jobs())
    if ((at -= job.weight) < 0) return job;
  return jobs().back();
}

bool Worker::run(const Job& job) {
  cancel_.store(0, std::memory_order_relaxed);
  if (model_ == nullptr) create();
  if (fault_.empty()) (this->*job.run)();
  model_bytes_.store(model_ == nullptr ? 0 : cov_model_memory_bytes(model_),
                     std::memory_order_relaxed);
  return fault_.empty();
}

void Worker::wrong(const char* what) {
  if (fault_.empty()) fault_ = what;
}

bool Worker::expect(cov_status status, int32_t code, const char* what) {
  if (status.code == code) return true;
  if (fault_.empty())
    fault_ = std::string(what) + ": " + cov_code_name(status.code) + " instead of " +
             cov_code_name(code) + " (" + status.message + ")";
  return false;
}

// ---- models --------------------------------------------------------------------------------

void Worker::create() {
  shape_ = kShapes[below(static_cast<int32_t>(std::size(kShapes)))];
  base_.resize(cov_parameter_count(&shape_));
  feedback_.assign(base_.size(), 0.0f);
  if (!expect(cov_initial_parameters(&shape_, random_(), base_.data(), base_.size()), COV_OK,
              "initial parameters"))
    return;
  cov_model_options options = {};
  options.parameters = base_.data();
  options.parameter_count = base_.size();
  options.threads = 1 + below(2);
  options.compute = below(2) == 0 ? COV_COMPUTE_F32 : COV_COMPUTE_BF16;
  expect(cov_model_create(&shape_, &options, &model_), COV_OK, "create");
}

void Worker::close() {
  cov_model_release(model_);
  model_ = nullptr;
}

void Worker::recreate() {
  // Two models at once for a moment, as when weights are handed over.
  cov_model* old = model_;
  model_ = nullptr;
  create();
  cov_model_release(old);
}

void Worker::trim() { cov_model_trim(model_); }

// ---- training ------------------------------------------------------------------------------

void Worker::fill_batch(int32_t sequences, int32_t length) {
  const size_t count = static_cast<size_t>(sequences) * static_cast<size_t>(length);
  tokens_.resize(count);
  targets_.resize(count);
  int32_t token = below(shape_.vocab_size);
  for (size_t i = 0; i < count; ++i) {
    tokens_[i] = token;
    token = (token * 5 + 3 + below(2)) % shape_.vocab_size;
    targets_[i] = below(16) == 0 ? -1 : token;
  }
  targets_[0] = token;
  batch_ = {tokens_.data(), targets_.data(), sequences, length};
}

void Worker::train() {
  fill_batch(1 + below(6), 1 + below(std::min(shape_.max_positions, 96)));
  double loss = 0;
  float norm = 0;
  if (!expect(cov_model_train_step(model_, &batch_, &kAdamw, &loss, &norm), COV_OK, "train step"))
    return;
  if (!std::isfinite(loss) || !std::isfinite(norm)) wrong("a training step has no finite loss");
}

void Worker::forward_and_backward() {
  fill_batch(1 + below(3), 1 + below(std::min(shape_.max_positions, 64)));
  log_probs_.assign(tokens_.size(), 0.0f);
  cov_forward_options options = {};
  options.keep_activations = 1;
  options.temperature = 1.0f;
  cov_forward_output output = {};
  output.log_probs = log_probs_.data();
  if (!expect(cov_model_forward(model_, &batch_, &options, &output), COV_OK, "forward")) return;
  if (below(8) == 0) return;  // kept activations that nobody asks for again
  const std::vector<float> coefficients(tokens_.size(), -1.0f / static_cast<float>(tokens_.size()));
  if (!expect(cov_model_backward(model_, coefficients.data(), coefficients.size()), COV_OK,
              "backward"))
    return;
  float norm = 0;
  expect(cov_model_optimizer_step(model_, &kAdamw, &norm), COV_OK, "optimizer step");
}

// ---- generation ----------------------------------------------------------------------------

void Worker::make_requests(int32_t count, int32_t new_tokens) {
  constexpr int32_t kPrompt = 12;
  prompt_.resize(kPrompt);
  for (int32_t& token : prompt_) token = below(shape_.vocab_size);
  requests_.assign(static_cast<size_t>(count), {});
  outputs_.assign(static_cast<size_t>(count), {});
  written_.assign(static_cast<size_t>(count * new_tokens), -1);
  log_probs_.assign(written_.size(), 0.0f);
  for (int32_t i = 0; i < count; ++i) {
    cov_generate_request& request = requests_[static_cast<size_t>(i)];
    request.prompt = prompt_.data();
    request.prompt_length = 1 + below(kPrompt);
    request.max_new_tokens = new_tokens;
    request.temperature = below(4) == 0 ? 0.0f : 0.9f;
    request.top_k = below(2) * 20;
    request.top_p = below(2) == 0 ? 1.0f : 0.9f;
    for (uint8_t& byte : request.sampling_seed) byte = static_cast<uint8_t>(random_());
    cov_generate_output& output = outputs_[static_cast<size_t>(i)];
    output.tokens = written_.data() + i * new_tokens;
    output.log_probs = log_probs_.data() + i * new_tokens;
  }
}

int32_t Worker::generate(const cov_generate_options& options) {
  const cov_status status =
      cov_model_generate(model_, requests_.data(), static_cast<int32_t>(requests_.size()), &options,
                         outputs_.data());
  if (status.code == COV_CANCELLED)
    cancelled_.fetch_add(1, std::memory_order_relaxed);
  else
    expect(status, COV_OK, "generate");
  return status.code;
}

void Worker::generate_and_replay() {
  make_requests(1 + below(5), 1 + below(40));
  cov_generate_options options = {};
  options.max_batch = 1 + below(4);
  options.weights = below(3);  // every cov_weight_type
  if (generate(options) != COV_OK) return;
  const cov_generate_request& request = requests_[0];
  const cov_generate_output& said = outputs_[0];
  cov_replay_request again = {};
  again.prompt = request.prompt;
  again.prompt_length = request.prompt_length;
  again.completion = said.tokens;
  again.completion_length = said.token_count;
  again.temperature = request.temperature;
  again.top_k = request.top_k;
  again.top_p = request.top_p;
  std::memcpy(again.sampling_seed, request.sampling_seed, sizeof again.sampling_seed);
  std::vector<int32_t> drawn(static_cast<size_t>(said.token_count));
  std::vector<float> log_probs(drawn.size());
  cov_replay_output output = {};
  output.drawn = drawn.data();
  output.log_probs = log_probs.data();
  cov_replay_options replay_options = {};
  replay_options.weights = options.weights;
  if (!expect(cov_model_replay(model_, &again, 1, &replay_options, &output), COV_OK, "replay"))
    return;
  if (!std::equal(drawn.begin(), drawn.end(), said.tokens))
    wrong("a replay draws other tokens than were generated");
  if (std::memcmp(log_probs.data(), said.log_probs, log_probs.size() * sizeof(float)) != 0)
    wrong("a replay has other log-probabilities than were generated");
}

void Worker::generate_and_cancel() {
  make_requests(1 + below(4), 60);
  struct Stop {
    std::atomic<int32_t>* flag;
    int32_t after;
  } stop = {&cancel_, below(80)};
  cov_generate_options options = {};
  options.context = &stop;
  options.on_token = [](void* context, int32_t, int32_t, int32_t, float) {
    Stop& counted = *static_cast<Stop*>(context);
    if (counted.after-- == 0) counted.flag->store(1, std::memory_order_relaxed);
  };
  // The library reads the flag atomically; std::atomic<int32_t> is one plain int32_t.
  static_assert(sizeof(cancel_) == sizeof(int32_t));
  options.cancel = reinterpret_cast<const int32_t*>(&cancel_);
  generate(options);
}

// A generator that lives for a while: requests come, some go before they are done, weights change.
void Worker::join_and_leave() {
  cov_generator_options options = {};
  options.weights = below(3);  // every cov_weight_type
  options.max_batch = 1 + below(4);
  options.page_limit = 12 + below(60);
  cov_generator* generator = nullptr;
  if (!expect(cov_generator_create(model_, &options, &generator), COV_OK, "generator")) return;
  make_requests(6, 1 + below(30));
  std::vector<uint64_t> ids;
  int32_t active = 1;
  for (int32_t step = 0; fault_.empty() && (active > 0 || ids.size() < requests_.size()); ++step) {
    if (ids.size() < requests_.size() && step % 3 == 0) {
      ids.push_back(0);
      const cov_status status = cov_generator_submit(generator, &requests_[ids.size() - 1], nullptr,
                                                     0, &ids.back());
      if (status.code != COV_OK) expect(status, COV_MEMORY_LIMIT, "submit");
    }
    if (below(12) == 0) {
      const cov_status status = cov_generator_cancel(generator, ids[random_() % ids.size()]);
      if (status.code == COV_OK)
        cancelled_.fetch_add(1, std::memory_order_relaxed);
      else
        expect(status, COV_OUT_OF_RANGE, "cancel of a request that has ended");
    }
    expect(cov_generator_step(
               generator, [](void*, const cov_generator_event*) {}, nullptr, &active),
           COV_OK, "step");
  }
  expect(cov_generator_refresh(generator), COV_OK, "refresh of an idle generator");
  cov_generator_release(generator);
}

// ---- updates and hashes --------------------------------------------------------------------

std::vector<uint8_t> Worker::compress(const std::vector<cov_tensor_info>& tensors,
                                      cov_sparse_format format, float drift) {
  float* current = nullptr;
  uint64_t length = 0, body_bytes = 0, kept = 0;
  const int32_t count = static_cast<int32_t>(tensors.size());
  expect(cov_model_buffer(model_, COV_PARAMETERS, &current, &length), COV_OK, "parameters");
  expect(cov_sparse_size(tensors.data(), count, format, &body_bytes, &kept), COV_OK, "size");
  if (!fault_.empty()) return {};
  for (uint64_t i = 0; i < length; i += 7) base_[i] += drift * current[i];
  std::vector<uint8_t> body(body_bytes);
  const cov_sparse_source source = {base_.data(), current, feedback_.data(), length, 0.95f};
  expect(cov_sparse_compress(&source, tensors.data(), count, format, 1 + below(2), body.data(),
                             body.size()),
         COV_OK, "compress");
  return body;
}

std::vector<cov_tensor_info> Worker::table() const {
  std::vector<cov_tensor_info> tensors(static_cast<size_t>(cov_tensor_count(&shape_)));
  cov_tensor_table(&shape_, tensors.data(), static_cast<int32_t>(tensors.size()));
  return tensors;
}

void Worker::compress_and_merge() {
  const std::vector<cov_tensor_info> tensors = table();
  const int32_t count = static_cast<int32_t>(tensors.size());
  const cov_sparse_format format = {1 + below(2), 1 + below(100)};
  std::vector<std::vector<uint8_t>> bodies;
  for (int32_t i = 0; i < 3; ++i) bodies.push_back(compress(tensors, format, 0.01f));
  if (!fault_.empty()) return;
  const uint8_t* data[3];
  uint64_t lengths[3];
  const float weights[3] = {1.0f, 0.5f, below(2) == 0 ? 0.0f : 2.0f};
  for (size_t i = 0; i < 3; ++i) {
    data[i] = bodies[i].data();
    lengths[i] = bodies[i].size();
  }
  const cov_merge_input input = {data, lengths, weights, 3, below(2), below(2)};
  cov_bytes merged = {};
  if (!expect(cov_sparse_merge(&input, tensors.data(), count, format, 1 + below(2), &merged),
              COV_OK, "merge"))
    return;
  std::vector<int32_t> skipped(tensors.size());
  int32_t skipped_count = 0;
  if (expect(cov_merged_apply(base_.data(), base_.size(), merged.data, merged.length,
                              tensors.data(), count, 0.5f, skipped.data(), &skipped_count),
             COV_OK, "apply") &&
      skipped_count != 0)
    wrong("a finite update has tensors to skip");
  cov_bytes_free(&merged);
}

// A body is packed for the way and comes back; damaged on the way, it is refused or still a body.
void Worker::pack(const std::vector<uint8_t>& body, const std::vector<cov_tensor_info>& tensors,
                  cov_sparse_format format) {
  const int32_t count = static_cast<int32_t>(tensors.size());
  cov_bytes packed = {};
  if (!expect(cov_sparse_pack(body.data(), body.size(), tensors.data(), count, format,
                              1 + below(2), &packed),
              COV_OK, "pack"))
    return;
  std::vector<uint8_t> out(body.size());
  expect(cov_sparse_unpack(packed.data, packed.length, tensors.data(), count, format, 1 + below(2),
                           out.data(), out.size()),
         COV_OK, "unpack");
  if (fault_.empty() && out != body) wrong("a packed body comes back as another");
  packed.data[random_() % packed.length] ^= static_cast<uint8_t>(1 + below(255));
  const cov_status status = cov_sparse_unpack(packed.data, packed.length, tensors.data(), count,
                                              format, 1, out.data(), out.size());
  uint64_t kept = 0;
  if (status.code != COV_OK)
    refused_.fetch_add(1, std::memory_order_relaxed);
  else
    expect(cov_sparse_check(out.data(), out.size(), tensors.data(), count, format, &kept), COV_OK,
           "check of a body from damaged bytes");
  cov_bytes_free(&packed);
}

// Merged and applied in one call as in two, on whatever parameters there are.
void Worker::update_at_once() {
  const std::vector<cov_tensor_info> tensors = table();
  const int32_t count = static_cast<int32_t>(tensors.size());
  const cov_sparse_format format = {1 + below(2), 1 + below(100)};
  const std::vector<uint8_t> bodies[2] = {compress(tensors, format, 0.01f),
                                          compress(tensors, format, 0.01f)};
  if (!fault_.empty()) return;
  const uint8_t* const data[2] = {bodies[0].data(), bodies[1].data()};
  const uint64_t lengths[2] = {bodies[0].size(), bodies[1].size()};
  const float weights[2] = {1.0f, 0.5f};
  const cov_merge_input input = {data, lengths, weights, 2, below(2), below(2)};
  std::vector<float> one = base_, two = base_;
  std::vector<int32_t> skipped(tensors.size());
  int32_t skipped_count = 0;
  cov_bytes merged = {};
  expect(cov_sparse_update(one.data(), one.size(), &input, tensors.data(), count, format, 0.5f,
                           1 + below(2), skipped.data(), &skipped_count),
         COV_OK, "update at once");
  if (!expect(cov_sparse_merge(&input, tensors.data(), count, format, 1 + below(2), &merged),
              COV_OK, "merge"))
    return;
  expect(cov_merged_apply(two.data(), two.size(), merged.data, merged.length, tensors.data(), count,
                          0.5f, skipped.data(), &skipped_count),
         COV_OK, "apply");
  cov_bytes_free(&merged);
  if (std::memcmp(one.data(), two.data(), one.size() * sizeof(float)) != 0)
    wrong("merging and applying in one call gives other bits than in two");
  pack(bodies[0], tensors, format);
}

void Worker::decode_damaged() {
  const std::vector<cov_tensor_info> tensors = table();
  const int32_t count = static_cast<int32_t>(tensors.size());
  const cov_sparse_format format = {2, 64};
  std::vector<uint8_t> body = compress(tensors, format, 0.01f);
  if (!fault_.empty()) return;
  for (int32_t i = 0; i < 20; ++i) {
    const size_t at = random_() % body.size();
    const uint8_t before = body[at];
    body[at] ^= static_cast<uint8_t>(1 + below(255));
    uint64_t kept = 0;
    const cov_status status =
        cov_sparse_check(body.data(), body.size(), tensors.data(), count, format, &kept);
    if (status.code != COV_OK) refused_.fetch_add(1, std::memory_order_relaxed);
    body[at] = before;
  }
  uint64_t kept = 0;
  expect(cov_sparse_check(body.data(), body.size(), tensors.data(), count, format, &kept), COV_OK,
         "check of a sound body");
}

void Worker::hash() {
  const std::vector<cov_tensor_info> tensors = table();
  const int32_t count = static_cast<int32_t>(tensors.size());
  uint8_t one[COV_HASH_BYTES], two[COV_HASH_BYTES];
  expect(cov_state_root(base_.data(), base_.size(), tensors.data(), count, 1, one), COV_OK, "root");
  expect(cov_state_root(base_.data(), base_.size(), tensors.data(), count, 2, two), COV_OK, "root");
  if (std::memcmp(one, two, sizeof one) != 0) wrong("two threads hash to another root than one");
}

// ---- bad turns -----------------------------------------------------------------------------

void Worker::exceed_memory() {
  // Room for the parameters and a little more: some calls fit, others do not, none may harm.
  cov_model_options options = {};
  options.threads = 1;
  options.memory_limit_bytes = cov_parameter_count(&shape_) * 4 * uint64_t(1 + below(6)) + 4096;
  cov_model* small = nullptr;
  const cov_status created = cov_model_create(&shape_, &options, &small);
  if (created.code != COV_OK) {
    expect(created, COV_MEMORY_LIMIT, "create within a limit");
    refused_.fetch_add(1, std::memory_order_relaxed);
    return;
  }
  fill_batch(2, std::min(shape_.max_positions, 64));
  double loss = 0;
  for (int i = 0; i < 2; ++i) {
    const cov_status status = cov_model_train_step(small, &batch_, &kAdamw, &loss, nullptr);
    if (status.code != COV_OK) {
      expect(status, COV_MEMORY_LIMIT, "training within a limit");
      refused_.fetch_add(1, std::memory_order_relaxed);
    }
    if (cov_model_memory_peak_bytes(small) > options.memory_limit_bytes)
      wrong("a model used more than its limit");
  }
  cov_model_release(small);
}

void Worker::bad_arguments() {
  fill_batch(1, 8);
  double loss = 0;
  tokens_[3] = shape_.vocab_size;
  expect(cov_model_train_step(model_, &batch_, &kAdamw, &loss, nullptr), COV_OUT_OF_RANGE,
         "a token past the vocabulary");
  tokens_[3] = 0;
  std::fill(targets_.begin(), targets_.end(), -1);
  expect(cov_model_train_step(model_, &batch_, &kAdamw, &loss, nullptr), COV_INVALID_ARGUMENT,
         "nothing scored");
  batch_.sequence_length = shape_.max_positions + 1;
  expect(cov_model_train_step(model_, &batch_, &kAdamw, &loss, nullptr), COV_OUT_OF_RANGE,
         "a sequence past the positions");
}

}  // namespace covenant_soak
