// Adapters of a frozen model through the C API: they learn, are merged for a while, and the base has
// its bits back. Then activations cross a cut between two stages in a subspace.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "covenant/activation.h"
#include "covenant/lora.h"
#include "covenant/model.h"

static void check(cov_status status) {
  if (status.code == COV_OK) return;
  std::fprintf(stderr, "%s: %s\n", cov_code_name(status.code), status.message);
  std::exit(1);
}

static void adapters() {
  const cov_model_shape shape = {
      .vocab_size = 64, .hidden_size = 64, .intermediate_size = 160, .layer_count = 2,
      .head_count = 4, .kv_head_count = 2, .max_positions = 64, .tie_word_embeddings = 1,
      .rope_theta = 10000.0, .rms_norm_eps = 1e-5};
  std::vector<float> base(cov_parameter_count(&shape));
  check(cov_initial_parameters(&shape, 1, base.data(), base.size()));
  for (float& p : base) p = p == 1.0f ? p : 10 * p;  // as large as after training
  const cov_model_options of_model = {.parameters = base.data(), .parameter_count = base.size()};
  cov_model* model = nullptr;
  check(cov_model_create(&shape, &of_model, &model));

  const cov_lora_options options = {.rank = 8, .alpha = 16.0f,
                                    .targets = COV_LORA_Q | COV_LORA_V | COV_LORA_DOWN, .seed = 1};
  cov_lora* lora = nullptr;
  check(cov_lora_create(model, &options, &lora));
  check(cov_model_use_lora(model, lora));

  std::vector<int32_t> tokens(64), targets(64);
  for (int32_t i = 0; i < 64; ++i) tokens[i] = i * 7 % 64, targets[i] = (i + 1) * 7 % 64;
  const cov_batch batch = {tokens.data(), targets.data(), 1, 64};
  const cov_adamw_options adamw = {.learning_rate = 1e-2f, .beta1 = 0.9f, .beta2 = 0.95f,
                                   .epsilon = 1e-8f, .gradient_clip = 1.0f};
  double loss = 0;
  for (int step = 0; step < 100; ++step)
    check(cov_model_train_step(model, &batch, &adamw, &loss, nullptr));
  std::printf("loss %.3f with %llu bytes of adapters\n", loss,
              static_cast<unsigned long long>(cov_lora_memory_bytes(lora)));

  check(cov_lora_merge(lora, 1));
  check(cov_model_use_lora(model, nullptr));  // the base alone says the same now
  check(cov_lora_unmerge(lora));
  float* parameters = nullptr;
  uint64_t count = 0;
  check(cov_model_buffer(model, COV_PARAMETERS, &parameters, &count));
  if (std::memcmp(parameters, base.data(), count * sizeof(float)) != 0) std::exit(1);
  cov_lora_release(lora);
  cov_model_release(model);
  if (!(loss < 1.0)) std::exit(1);
}

static void projection() {
  constexpr int32_t kWidth = 64, kRank = 8, kRows = 16;
  std::vector<float> basis(kWidth * kRank), x(kRows * kWidth), z(kRows * kRank), y(kRows * kWidth);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i * 37 % 101) / 101 - 0.5f;
  check(cov_projection_random_basis(1, kWidth, kRank, basis.data()));
  const cov_projection cut = {.basis = basis.data(), .width = kWidth, .rank = kRank};

  check(cov_projection_encode(&cut, x.data(), nullptr, kRows, 0, z.data()));  // sender
  check(cov_projection_decode(&cut, z.data(), nullptr, kRows, 0, y.data()));  // receiver

  std::vector<float> dy(y), dz(z.size()), dx(x.size()), gradient(basis.size()),
      momentum(basis.size());
  for (size_t i = 0; i < dy.size(); ++i) dy[i] = (y[i] - x[i]) / kRows;
  check(cov_projection_decode_backward(&cut, dy.data(), z.data(), nullptr, kRows, 0, dz.data(),
                                       gradient.data(), nullptr));
  check(cov_projection_encode_backward(&cut, dz.data(), x.data(), nullptr, kRows, 0, dx.data(),
                                       gradient.data(), nullptr));
  check(cov_projection_step(basis.data(), gradient.data(), momentum.data(), kWidth, kRank, 0.5f,
                            0.9f));

  const auto error = [&] {
    check(cov_projection_encode(&cut, x.data(), nullptr, kRows, 0, z.data()));
    check(cov_projection_decode(&cut, z.data(), nullptr, kRows, 0, y.data()));
    double sum = 0;
    for (size_t i = 0; i < y.size(); ++i) sum += double(y[i] - x[i]) * double(y[i] - x[i]);
    return sum;
  };
  double before = 0;
  for (const float d : dy) before += double(d) * kRows * double(d) * kRows;
  const double after = error();
  std::printf("the cut loses %.3f, after a step of the basis %.3f\n", before, after);
  if (!(after < before)) std::exit(1);
}

int main() {
  adapters();
  projection();
}
