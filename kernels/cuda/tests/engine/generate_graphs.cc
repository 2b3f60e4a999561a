// Generation by CUDA graphs: the bits of plain launches while requests come and go, whatever has changed
// between two calls, and when captures are refused.
#include <cstdlib>

#include "adapters.h"
#include "generated.h"
#include "support.h"

namespace {

using namespace covenant_test;

constexpr cov_model_shape kShape = {37, 24, 20, 2, 4, 2, 64, 0, 10000.0, 1e-5};
constexpr int32_t kRequests = 9, kNew = 14, kDims = 5, kTops = 2;
constexpr uint64_t kLayerLaunches = 10;  // of an fp32 model
constexpr int32_t kStops[] = {5, 9};

bool emulated() {
  cov_device_info info{};
  CHECK_OK(cov_device_info_at(0, &info));
  return info.compute_capability == 0;
}

// Prompts and numbers of new tokens of every length, so that sequences leave and join at different steps.
struct Requests {
  std::vector<int32_t> prompts = Numbers(3).tokens(64, kShape.vocab_size);
  std::vector<cov_generate_request> list;
  Requests() {
    for (int32_t i = 0; i < kRequests; ++i) {
      const float temperature = i % 3 == 0 ? 0.0f : 0.6f + 0.1f * static_cast<float>(i);
      const auto seed = static_cast<uint8_t>(i);
      list.push_back({prompts.data() + i, 1 + 5 * i % 11, 3 + 7 * i % 12, temperature, i % 4 == 1 ? 6 : 0,
                      i % 4 == 2 ? 0.8f : 0.0f, kStops, i % 2 == 0 ? 2 : 0, {seed, 2}});
    }
  }
};

using Results = Generated<kRequests, kNew, kDims, kTops>;

cov_status generate(cov_device_model* model, int32_t batch, Results& results, int32_t weights = COV_WEIGHTS_F32) {
  static const Requests requests;
  const cov_fingerprint_options fingerprint = {{4, 2}, kDims};
  const cov_generate_options options = {&fingerprint, kTops, batch, nullptr, nullptr, nullptr, weights};
  return cov_device_model_generate(model, requests.list.data(), kRequests, &options,
                                   results.outputs.data());
}

cov_device_graphs counts(const cov_device_model* model) {
  cov_device_graphs graphs{};
  CHECK_OK(cov_device_model_graphs(model, &graphs));
  return graphs;
}

// With and without graphs; gives what came out.
Results check_both(cov_device_model* model, int32_t batch, int32_t weights = COV_WEIGHTS_F32) {
  Results plain, graphs;
  CHECK_OK(cov_device_model_set_graphs(model, 0));
  const cov_device_graphs before = counts(model);
  CHECK_OK(generate(model, batch, plain, weights));
  const cov_device_graphs between = counts(model);
  CHECK(between.enabled == 0 && between.captured == before.captured && between.launched == before.launched);
  CHECK(between.plain > before.plain);
  CHECK_OK(cov_device_model_set_graphs(model, 1));
  CHECK_OK(generate(model, batch, graphs, weights));
  const cov_device_graphs after = counts(model);
  CHECK(after.enabled == 1 && after.captured > between.captured);
  CHECK(after.launched - between.launched > after.captured - between.captured);
  // The same steps, some of them as graphs.
  CHECK(after.launched - between.launched + after.plain - between.plain == between.plain - before.plain);
  CHECK(after.refusal.code == COV_OK);
  check_same(plain, graphs);
  return graphs;
}

void batches(cov_device* device, const std::vector<float>& parameters) {
  const DeviceModel exact(device, kShape, parameters), rounded(device, kShape, parameters, COV_COMPUTE_BF16);
  for (const DeviceModel* const model : {&exact, &rounded}) {
    const Results one = check_both(*model, 1);
    for (const int32_t batch : {2, 5, 7, 0}) {
      if (kSanitized && batch != 5) continue;
      check_same(check_both(*model, batch), one);
    }
  }
  const DeviceModel in_bytes(device, kShape, parameters);
  check_both(in_bytes, 5, COV_WEIGHTS_INT8);
  // Lists, embedding, layers, norm, head and hidden states; bf16 models round what attention gives, and with int8
  // weights it becomes bytes.
  CHECK(counts(exact).nodes_max == 5 + kLayerLaunches * kShape.layer_count);
  CHECK(counts(rounded).nodes_max == 5 + (kLayerLaunches + 1) * kShape.layer_count);
  CHECK(counts(in_bytes).nodes_max == 5 + (kLayerLaunches + 1) * kShape.layer_count);
}

// Graphs of one call know nothing of what the next one has to read.
void changes(cov_device* device, const std::vector<float>& parameters) {
  const DeviceModel model(device, kShape, parameters);
  const Results base = check_both(model, 4);
  CHECK_OK(cov_device_model_write(model, COV_PARAMETERS, 0, parameters.size(),
                                  lively_parameters(kShape, 12).data()));
  const Results other = check_both(model, 4);
  CHECK(other.log_probs != base.log_probs);
  {
    const cov_lora_options options = {3, 6.0f, 127, 17};
    const DeviceAdapters<cov_device_model> adapters(model, options, Numbers(41).floats(1800, 0.2f));
    CHECK(check_both(model, 4).log_probs != other.log_probs);
    CHECK_OK(cov_device_model_use_lora(model, nullptr));
  }
  check_same(check_both(model, 4), other);
}

// Sequences that grow past the positions one graph serves.
void long_sequences(cov_device* device) {
  const cov_model_shape shape = {11, 4, 4, 1, 1, 1, 1100, 1, 10000.0, 1e-5};
  const DeviceModel model(device, shape, lively_parameters(shape, 5));
  const std::vector<int32_t> prompt = Numbers(8).tokens(1019, shape.vocab_size);
  constexpr int32_t kCount = 12;
  std::vector<std::vector<int32_t>> tokens;
  std::vector<std::vector<float>> log_probs;
  for (const int32_t enabled : {0, 1}) {
    CHECK_OK(cov_device_model_set_graphs(model, enabled));
    tokens.emplace_back(kCount);
    log_probs.emplace_back(kCount);
    const cov_generate_request request = {prompt.data(), 1019, kCount, 1.0f, 0, 0.0f, nullptr, 0, {3}};
    cov_generate_output output = {tokens.back().data(), log_probs.back().data(), nullptr, nullptr, nullptr, 0, 0};
    const cov_generate_options options = {nullptr, 0, 0, nullptr, nullptr, nullptr, 0};
    CHECK_OK(cov_device_model_generate(model, &request, 1, &options, &output));
  }
  CHECK(tokens[0] == tokens[1]);
  CHECK_SAME(log_probs[0].data(), log_probs[1].data(), kCount * sizeof(float));
  CHECK(counts(model).captured == 2);
}

// A capture that CUDA refuses, at each call there is: plain launches, and the reason.
void refusals(cov_device* device, const std::vector<float>& parameters) {
  const DeviceModel model(device, kShape, parameters);
  const Results expected = check_both(model, 5);
  for (const char* const call : {"begin", "end", "instantiate", "upload"}) {
    const cov_device_graphs before = counts(model);
    setenv("COVENANT_EMULATION_CAPTURE_FAULT", call, 1);
    Results found;
    CHECK_OK(generate(model, 5, found));
    unsetenv("COVENANT_EMULATION_CAPTURE_FAULT");
    check_same(found, expected);
    const cov_device_graphs after = counts(model);
    CHECK(after.captured == before.captured && after.launched == before.launched);
    CHECK(after.plain > before.plain);
    CHECK(after.refusal.code == (std::strcmp(call, "begin") == 0 ? COV_UNSUPPORTED : COV_OUT_OF_MEMORY));
    CHECK(std::strstr(after.refusal.message, "ing a ") != nullptr);
    Results again;
    CHECK_OK(generate(model, 5, again));
    check_same(again, expected);
    CHECK(counts(model).launched > after.launched);
  }
}

// A fault of a launch, before, during and after captures, is an error; the model goes on.
void faults(cov_device* device, const std::vector<float>& parameters) {
  const DeviceModel model(device, kShape, parameters);
  const Results expected = check_both(model, 5);
  for (const char* const fault : {"0:3", "0:50", "0:60", "0:75", "0:80", "0:160", "0:200"}) {
    if (kSanitized && std::strcmp(fault, "0:60") != 0) continue;
    setenv("COVENANT_EMULATION_FAULT", fault, 1);
    Results none;
    CHECK_CODE(generate(model, 5, none), COV_INTERNAL);
    unsetenv("COVENANT_EMULATION_FAULT");
    Results found;
    CHECK_OK(generate(model, 5, found));
    check_same(found, expected);
  }
}

void arguments(cov_device* device, const std::vector<float>& parameters) {
  setenv("COVENANT_CUDA_GRAPHS", "0", 1);
  const DeviceModel model(device, kShape, parameters);
  unsetenv("COVENANT_CUDA_GRAPHS");
  CHECK(counts(model).enabled == 0);
  Results results;
  CHECK_OK(generate(model, 5, results));
  CHECK(counts(model).captured == 0 && counts(model).launched == 0 && counts(model).plain > 0);
  cov_device_graphs graphs{};
  CHECK_CODE(cov_device_model_graphs(nullptr, &graphs), COV_INVALID_ARGUMENT);
  CHECK_CODE(cov_device_model_graphs(model, nullptr), COV_INVALID_ARGUMENT);
  CHECK_CODE(cov_device_model_set_graphs(nullptr, 1), COV_INVALID_ARGUMENT);
  CHECK_CODE(cov_device_model_set_graphs(model, 2), COV_INVALID_ARGUMENT);
}

}  // namespace

int main() {
  if (!have_device()) return kSkipped;
  const DevicePointer device = open_device();
  const std::vector<float> parameters = lively_parameters(kShape, 11);
  batches(device.get(), parameters);
  changes(device.get(), parameters);
  if (!kSanitized) long_sequences(device.get());
  if (emulated()) {
    refusals(device.get(), parameters);
    faults(device.get(), parameters);
  }
  arguments(device.get(), parameters);
  TEST_MAIN_END("cuda generate graphs");
}
