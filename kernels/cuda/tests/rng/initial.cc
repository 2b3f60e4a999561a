// Initial parameters and draws: the device's bits are the CPU's.
#include <vector>

#include "covenant/rng.h"
#include "device_test.h"
#include "initial.h"
#include "rng/initial.h"

namespace {

void test_initial_parameters() {
  cov_model_shape shape{};
  shape.vocab_size = 131;
  shape.hidden_size = 12;
  shape.intermediate_size = 29;
  shape.layer_count = 3;
  shape.head_count = 3;
  shape.kv_head_count = 1;
  shape.max_positions = 16;
  shape.rope_theta = 10000;
  shape.rms_norm_eps = 1e-5;
  for (const int32_t tied : {0, 1}) {
    shape.tie_word_embeddings = tied;
    const uint64_t length = cov_parameter_count(&shape);
    std::vector<float> wanted(length);
    CHECK_OK(cov_initial_parameters(&shape, 0xfedcba9876543210ull, wanted.data(), length));
    const auto device = covenant_test::open_device();
    void* memory = nullptr;
    CHECK_OK(cov_device_allocate(device.get(), 4 * length, &memory));
    auto* const parameters = static_cast<float*>(memory);
    CHECK_OK(cov_device_initial_parameters(device.get(), &shape, 0xfedcba9876543210ull, parameters,
                                           length));
    std::vector<float> found(length);
    CHECK_OK(cov_device_download(device.get(), found.data(), parameters, 4 * length));
    CHECK_SAME(found.data(), wanted.data(), 4 * length);
    CHECK_CODE(cov_device_initial_parameters(device.get(), &shape, 1, parameters, length - 1),
               COV_INVALID_ARGUMENT);
    CHECK_CODE(cov_device_initial_parameters(device.get(), &shape, 1, nullptr, length),
               COV_INVALID_ARGUMENT);
  }
}

void test_draws() {
  using namespace covenant::cuda;
  uint8_t seed[32];
  for (int i = 0; i < 32; ++i) seed[i] = static_cast<uint8_t>(37 * i + 11);
  constexpr uint32_t count = 1000;
  constexpr uint32_t first = 0xfffffe00u;  // runs over the end of 32 bits
  const cov_status status = guard([&] {
    Device device(0, 0);
    Buffer<double> uniforms(device, count);
    Buffer<int> signs(device, count);
    launch_draws(device.stream(), seed, first, count, uniforms.data(), signs.data());
    std::vector<double> u(count);
    std::vector<int> s(count);
    device.download(u.data(), uniforms.data(), count * sizeof(double));
    device.download(s.data(), signs.data(), count * sizeof(int));
    device.finish();
    for (uint32_t i = 0; i < count; ++i) {
      CHECK(u[i] == cov_uniform_at(seed, first + i));
      CHECK(s[i] == cov_fingerprint_sign(seed, i % 7, first + i));
    }
  });
  CHECK_OK(status);
}

}  // namespace

int main() {
  if (!covenant_test::have_device()) return covenant_test::kSkipped;
  test_initial_parameters();
  test_draws();
  TEST_MAIN_END("cuda initial parameters");
}
