// Speed of the engine as a ratio to a limit measured in the same run: the best rate of fused
// multiply-adds on one core. Usage: engine_bench [threads] [seconds per case]
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "covenant/model.h"
#include "covenant/rng.h"
#include "engine/gemm.h"
#include "engine/isa/table.h"

namespace {

double now_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Best of repeats of `body` within about `seconds`, at least three.
template <typename Body>
double best_s(double seconds, const Body& body) {
  double best = 1e30;
  const double end = now_s() + seconds;
  for (int i = 0; i < 3 || now_s() < end; ++i) {
    const double start = now_s();
    body();
    best = std::min(best, now_s() - start);
  }
  return best;
}

// The micro-kernel on operands that stay in the first-level cache: nothing but multiply-adds.
double peak_gflops(double seconds) {
  constexpr int64_t kRows = 12, kColumns = 32, kInner = 128, kRepeats = 2000;
  std::vector<float> a(kRows * kInner, 0.5f), b(kInner * kColumns, 0.25f), c(kRows * kColumns);
  const covenant::KernelTable& kernel = covenant::kernels();
  const double time = best_s(seconds, [&] {
    for (int64_t i = 0; i < kRepeats; ++i)
      kernel.gemm(kRows, kColumns, kInner, a.data(), kInner, 1, b.data(), 0, nullptr, 0, c.data(),
                  kColumns);
  });
  return 2e-9 * kRows * kColumns * kInner * kRepeats / time;
}

void bench_products(covenant::ThreadPool& pool, double peak, double seconds) {
  const int64_t shapes[][3] = {{512, 384, 128}, {512, 128, 128},  {512, 704, 128},  {512, 128, 352},
                               {512, 512, 128}, {2048, 512, 512}, {2048, 128, 512}, {1, 512, 128},
                               {8, 704, 128},   {512, 2048, 512}};
  std::printf("%-24s %10s %10s %10s %10s\n", "product (M, N, K)", "Y=XW^T", "ratio", "dW", "ratio");
  for (const auto& shape : shapes) {
    const int64_t m = shape[0], n = shape[1], k = shape[2];
    std::vector<float> x(static_cast<size_t>(m * k), 0.1f), w(static_cast<size_t>(n * k), 0.2f);
    std::vector<float> y(static_cast<size_t>(m * n), 0.1f), dw(static_cast<size_t>(n * k));
    std::vector<float> packed(static_cast<size_t>(covenant::packed_size(k, n)));
    std::vector<float> scratch(
        static_cast<size_t>(covenant::gradient_scratch_size() * pool.threads()));
    covenant::pack_forward(pool, w.data(), n, k, packed.data());
    const int repeats = static_cast<int>(1 + 20000000 / (m * n * k));
    const double forward =
        best_s(seconds,
               [&] {
                 for (int i = 0; i < repeats; ++i)
                   covenant::multiply(pool, x.data(), m, k, packed.data(), n, nullptr, y.data());
               }) /
        repeats;
    const double gradient = best_s(seconds,
                                   [&] {
                                     for (int i = 0; i < repeats; ++i)
                                       covenant::multiply_gradient(pool, y.data(), x.data(), m, n,
                                                                   k, dw.data(), scratch.data());
                                   }) /
                            repeats;
    const double flop = 2e-9 * static_cast<double>(m * n * k);
    char name[64];
    std::snprintf(name, sizeof name, "(%d, %d, %d)", static_cast<int>(m), static_cast<int>(n),
                  static_cast<int>(k));
    std::printf("%-24s %10.1f %10.2f %10.1f %10.2f\n", name, flop / forward, flop / forward / peak,
                flop / gradient, flop / gradient / peak);
  }
}

void require(cov_status status) {
  if (status.code == COV_OK) return;
  std::fprintf(stderr, "%s\n", status.message);
  std::exit(1);
}

void bench_model(int threads, double peak, double seconds) {
  const cov_model_shape shape = {512, 128, 352, 4, 4, 4, 256, 1, 10000.0, 1e-5};
  std::vector<float> parameters(cov_parameter_count(&shape));
  require(cov_initial_parameters(&shape, 1, parameters.data(), parameters.size()));
  const cov_model_options options = {parameters.data(), parameters.size(), threads, 0, 0};
  cov_model* model = nullptr;
  require(cov_model_create(&shape, &options, &model));
  constexpr int32_t kSequences = 16, kLength = 128;
  std::vector<int32_t> tokens(kSequences * kLength), targets(tokens.size());
  for (size_t i = 0; i < tokens.size(); ++i) {
    tokens[i] = static_cast<int32_t>(i * 7919 % 512);
    targets[i] = static_cast<int32_t>((i + 1) * 7919 % 512);
  }
  const cov_batch batch = {tokens.data(), targets.data(), kSequences, kLength};
  const cov_adamw_options adamw = {1e-3f, 0.9f, 0.95f, 1e-8f, 0.1f, 1.0f};
  double loss = 0;
  const double step = best_s(
      seconds * 4, [&] { require(cov_model_train_step(model, &batch, &adamw, &loss, nullptr)); });
  const double matrix = 6.0 * (4 * (4.0 * 128 * 128 + 3 * 128 * 352) + 512 * 128);
  const double attention = 6.0 * 4 * kLength * 128;  // causal half, forward and backward
  const double rate = kSequences * kLength / step;
  std::printf(
      "train 0.84 M, 16 x 128, %d thread(s): %.0f tokens/s, %.2f ms/step, %.1f GFLOP/s = "
      "%.2f of the peak of %d core(s)\n",
      threads, rate, step * 1e3, rate * (matrix + attention) * 1e-9,
      rate * (matrix + attention) * 1e-9 / (peak * threads), threads);
  const cov_forward_options forward_options = {0, 0, 1.0f};
  std::vector<float> log_probs(tokens.size());
  const cov_forward_output output = {log_probs.data(), nullptr, nullptr, nullptr};
  const double forward = best_s(
      seconds, [&] { require(cov_model_forward(model, &batch, &forward_options, &output)); });
  std::printf("forward: %.0f tokens/s, %.2f of peak\n", kSequences * kLength / forward,
              kSequences * kLength / forward * (matrix + attention) / 3 * 1e-9 / (peak * threads));
  for (const int32_t requests : {1, 8, 32}) {
    constexpr int32_t kNew = 64;
    std::vector<cov_generate_request> request(static_cast<size_t>(requests));
    std::vector<cov_generate_output> outputs(static_cast<size_t>(requests));
    std::vector<int32_t> out(static_cast<size_t>(requests * kNew));
    for (int32_t i = 0; i < requests; ++i) {
      request[static_cast<size_t>(i)] = {
          tokens.data() + i * 16, 16, kNew, 1.0f, 0, 1.0f, nullptr, 0, {static_cast<uint8_t>(i)}};
      outputs[static_cast<size_t>(i)] = {
          out.data() + i * kNew, nullptr, nullptr, nullptr, nullptr, 0, 0};
    }
    const cov_generate_options generate_options = {};
    const double time = best_s(seconds, [&] {
      require(
          cov_model_generate(model, request.data(), requests, &generate_options, outputs.data()));
    });
    std::printf("generate, %2d sequences: %.0f tokens/s\n", requests, requests * kNew / time);
  }
  cov_model_release(model);
}

}  // namespace

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : 1;
  const double seconds = argc > 2 ? std::atof(argv[2]) : 0.3;
  const double peak = peak_gflops(seconds);
  std::printf("path %s, peak of one core %.1f GFLOP/s fp32\n", cov_cpu_path(), peak);
  covenant::ThreadPool pool(threads);
  bench_products(pool, peak, seconds / 4);
  bench_model(threads, peak, seconds);
  return 0;
}
