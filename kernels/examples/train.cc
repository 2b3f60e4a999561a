// Trains a small LLaMA on the bytes of a text file and lets it write: train FILE [STEPS].
// Everything goes through the C API; a failed call returns its code and says in a sentence why.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <vector>

#include "covenant/model.h"

static void check(cov_status status) {
  if (status.code == COV_OK) return;
  std::fprintf(stderr, "%s: %s\n", cov_code_name(status.code), status.message);
  std::exit(1);
}

int main(int argc, char** argv) {
  std::ifstream file(argc > 1 ? argv[1] : "", std::ios::binary);
  const std::vector<char> text((std::istreambuf_iterator<char>(file)), {});
  constexpr int32_t kSequences = 8, kLength = 64, kNew = 200;
  if (text.size() <= kLength) return std::fprintf(stderr, "Usage: train FILE [STEPS]\n"), 2;

  const cov_model_shape shape = {
      .vocab_size = 256, .hidden_size = 96, .intermediate_size = 256, .layer_count = 3,
      .head_count = 4, .kv_head_count = 2, .max_positions = 256, .tie_word_embeddings = 1,
      .rope_theta = 10000.0, .rms_norm_eps = 1e-5};
  std::vector<float> initial(cov_parameter_count(&shape));
  check(cov_initial_parameters(&shape, 1, initial.data(), initial.size()));
  const cov_model_options options = {.parameters = initial.data(),
                                     .parameter_count = initial.size()};
  cov_model* model = nullptr;
  check(cov_model_create(&shape, &options, &model));
  const cov_adamw_options adamw = {3e-3f, 0.9f, 0.95f, 1e-8f, 0.1f, 1.0f};
  std::vector<int32_t> tokens(kSequences * kLength), targets(kSequences * kLength);
  const int steps = argc > 2 ? std::atoi(argv[2]) : 500;
  for (int step = 1; step <= steps; ++step) {
    for (size_t i = 0; i < tokens.size(); ++i) {  // sequences lie spread over the text
      const size_t start = (step * 97 + i / kLength * 7919) * 31 % (text.size() - kLength);
      tokens[i] = static_cast<uint8_t>(text[start + i % kLength]);
      targets[i] = static_cast<uint8_t>(text[start + i % kLength + 1]);
    }
    const cov_batch batch = {tokens.data(), targets.data(), kSequences, kLength};
    double loss = 0;
    check(cov_model_train_step(model, &batch, &adamw, &loss, nullptr));
    if (step % 50 == 0 || step == steps) std::printf("step %d loss %.3f\n", step, loss);
  }

  const int32_t prompt[] = {'T', 'h', 'e', ' '};
  const cov_generate_request request = {
      .prompt = prompt, .prompt_length = 4, .max_new_tokens = kNew, .temperature = 0.8f,
      .top_k = 40, .top_p = 0.95f, .sampling_seed = {42}};
  int32_t written[kNew];
  cov_generate_output output = {.tokens = written};
  const cov_generate_options one_by_one = {};
  check(cov_model_generate(model, &request, 1, &one_by_one, &output));
  std::for_each_n(written, output.token_count, [](int32_t token) { std::putchar(token); });
  std::puts("");
  cov_model_release(model);
}
