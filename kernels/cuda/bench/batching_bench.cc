// The long-lived generator on a device: requests that join as others end beside calls of generate for one batch after
// another, and completions of one prompt beside as many prompts. Bounds are not stated for it.
#include "bench.h"
#include "covenant/device_generator.h"

namespace {

using namespace covenant_bench;
using covenant::cuda::require;


double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

class Batching {
 public:
  Batching(const Options& options, const Machine& machine)
      // Parameters with gradients and moments, their bf16 copies, the embedding again, and pages.
      : options_(options), machine_(machine), shape_(shape_for(machine, options.quick, 26)) {
    require(cov_device_open(0, 0, &device_));
    require(cov_device_model_create(device_, &shape_, COV_COMPUTE_BF16, &model_));
    std::vector<float> parameters(cov_parameter_count(&shape_));
    require(cov_initial_parameters(&shape_, 1, parameters.data(), parameters.size()));
    require(cov_device_model_write(model_, COV_PARAMETERS, 0, parameters.size(), parameters.data()));
    const cov_generator_options generator = {COV_WEIGHTS_F32, batch(), 0, 0, 0};
    require(cov_device_generator_create(model_, &generator, &generator_));
  }
  ~Batching() {
    cov_device_generator_release(generator_);
    cov_device_model_release(model_);
    cov_device_close(device_);
  }
  Batching(const Batching&) = delete;
  Batching& operator=(const Batching&) = delete;

  // Completions of 1 to `most` tokens: with a fixed batch each waits for the longest of its call.
  void joining() {
    const int32_t most = machine_.emulated ? 6 : options_.quick ? 32 : 128;
    std::vector<cov_generate_request> requests;
    std::vector<int32_t> prompt(16);
    for (size_t i = 0; i < prompt.size(); ++i) prompt[i] = static_cast<int32_t>(i) * 7 % shape_.vocab_size;
    int64_t tokens = 0;
    for (int32_t i = 0; i < 4 * batch(); ++i) {
      const int32_t own = 1 + i * 37 % most;
      requests.push_back({prompt.data() + i % 8, 8, own, 0.0f, 0, 0.0f, nullptr, 0, {}});
      tokens += own;
    }
    compare("join", std::to_string(requests.size()) + " completions of 1 to " + std::to_string(most) + " tokens, " +
                        std::to_string(batch()) + " at once, joining as others end",
            "calls of generate for " + std::to_string(batch()) + " each", tokens, requests, [&] { fixed(requests); });
  }

  // A group of completions computes its prompt once.
  void sharing() {
    const int32_t length = machine_.emulated ? 40 : 512, own = machine_.emulated ? 2 : 16;
    const auto prompts = static_cast<size_t>(batch() + 1);
    std::vector<int32_t> tokens(prompts * static_cast<size_t>(length));
    for (size_t i = 0; i < tokens.size(); ++i)
      tokens[i] = static_cast<int32_t>((i * 31 + i / static_cast<size_t>(length)) % static_cast<size_t>(shape_.vocab_size));
    std::vector<cov_generate_request> together, apart;
    for (int32_t i = 0; i < batch(); ++i) {
      together.push_back({tokens.data(), length, own, 1.0f, 0, 0.0f, nullptr, 0, {static_cast<uint8_t>(i)}});
      apart.push_back(together.back());
      apart.back().prompt = tokens.data() + (i + 1) * length;
    }
    compare("share", std::to_string(batch()) + " completions of one prompt of " + std::to_string(length) + " tokens",
            "as many prompts", int64_t{batch()} * own, together, [&] { run(apart); });
  }

 private:
  int32_t batch() const { return machine_.emulated ? 3 : 32; }

  // The generator over `requests`, by turns with the yardstick.
  template <typename Yardstick>
  void compare(const std::string& id, const std::string& what, const std::string& against, int64_t tokens,
               const std::vector<cov_generate_request>& requests, const Yardstick& yardstick) {
    std::vector<double> own, other, ratios;
    for (int round = machine_.emulated ? 0 : -1; round < (machine_.emulated ? 1 : 5); ++round) {  // -1 warms up
      const double start = now_s();
      yardstick();
      const double between = now_s();
      run(requests);
      const double end = now_s();
      if (round < 0) continue;
      other.push_back(between - start);
      own.push_back(end - between);
      ratios.push_back((between - start) / (end - between));
    }
    Row row;
    row.id = "generate." + id;
    row.metric = "bf16 generation, Llama-3.2-1B shape, " + what + ": tokens";
    row.unit = "token/s";
    row.value = static_cast<double>(tokens) / median(own);
    row.yardstick = against;
    row.yardstick_value = static_cast<double>(tokens) / median(other);
    row.ratio = median(ratios);
    row.note = machine_.info.name;
    if (shape_.layer_count != 16) row.note += ", " + std::to_string(shape_.layer_count) + " layers";
    if (machine_.emulated) row.note += ": shows that it runs, no measurement";
    print(options_, row);
  }

  void run(const std::vector<cov_generate_request>& requests) {
    for (const cov_generate_request& request : requests)
      require(cov_device_generator_submit(generator_, &request, nullptr, 0, nullptr));
    cov_status worst = cov_ok();
    const auto look = [](void* context, const cov_generator_event* event) {
      if (event->status.code != COV_OK) *static_cast<cov_status*>(context) = event->status;
    };
    for (int32_t active = 1; active > 0;) require(cov_device_generator_step(generator_, look, &worst, &active));
    require(worst);
  }

  void fixed(const std::vector<cov_generate_request>& requests) {
    for (size_t first = 0; first < requests.size(); first += static_cast<size_t>(batch())) {
      std::vector<std::vector<int32_t>> tokens;
      std::vector<cov_generate_output> outputs;
      for (int32_t i = 0; i < batch(); ++i) {
        tokens.emplace_back(static_cast<size_t>(requests[first + static_cast<size_t>(i)].max_new_tokens));
        outputs.push_back({tokens.back().data(), nullptr, nullptr, nullptr, nullptr, 0, 0});
      }
      const cov_generate_options options = {nullptr, 0, batch(), nullptr, nullptr, nullptr, COV_WEIGHTS_F32};
      require(cov_device_model_generate(model_, requests.data() + first, batch(), &options, outputs.data()));
    }
  }

  Options options_;
  Machine machine_;
  cov_model_shape shape_;
  cov_device* device_ = nullptr;
  cov_device_model* model_ = nullptr;
  cov_device_generator* generator_ = nullptr;
};

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse(argc, argv);
  const Machine here = machine();
  const cov_status status = covenant::cuda::guard([&] {
    Batching batching(options, here);
    batching.joining();
    batching.sharing();
  });
  if (status.code != COV_OK) std::fprintf(stderr, "%s\n", status.message);
  return status.code == COV_OK ? 0 : 1;
}
