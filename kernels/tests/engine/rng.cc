// Philox against the published vectors; the derived definitions; initial parameters and the tensor
// table.
#include <algorithm>
#include <vector>

#include "support.h"

using namespace covenant_test;

namespace {

// Random123's kat_vectors, philox 4x32 10.
void test_known_answers() {
  const struct {
    uint32_t counter[4], key[2], expected[4];
  } cases[] = {
      {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
      {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
       {0xffffffff, 0xffffffff},
       {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
      {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
       {0xa4093822, 0x299f31d0},
       {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
  };
  for (const auto& c : cases) {
    uint32_t out[4];
    cov_philox4x32(c.key, c.counter, out);
    CHECK_SAME(out, c.expected, sizeof out);
  }
}

void test_seeded() {
  uint8_t seed[32];
  for (int i = 0; i < 32; ++i) seed[i] = static_cast<uint8_t>(i + 1);
  const uint32_t key[2] = {0x04030201u, 0x08070605u};
  uint32_t out[4];
  const uint32_t counter[4] = {77, 0, 0x0c0b0a09u, 0x100f0e0du};
  cov_philox4x32(key, counter, out);
  CHECK(cov_uniform_at(seed, 77) == (out[0] + 0.5) / 4294967296.0);
  const uint32_t sign_counter[4] = {300 / 128, 1 + 5, 0x0c0b0a09u, 0x100f0e0du};
  cov_philox4x32(key, sign_counter, out);
  CHECK(cov_fingerprint_sign(seed, 5, 300) == ((out[(300 % 128) / 32] >> (300 % 32)) & 1 ? 1 : -1));
  int sum = 0;
  double mean = 0;
  for (uint32_t i = 0; i < 4096; ++i) {
    sum += cov_fingerprint_sign(seed, 0, i);
    const double u = cov_uniform_at(seed, i);
    CHECK(u > 0.0 && u < 1.0);
    mean += u / 4096;
  }
  CHECK(std::abs(sum) < 320);  // 5 sigma
  CHECK_NEAR(mean, 0.5, 0.0226);
}

void test_initial_parameters() {
  const cov_model_shape shape = small_shape();
  std::vector<cov_tensor_info> table(static_cast<size_t>(cov_tensor_count(&shape)));
  CHECK_OK(cov_tensor_table(&shape, table.data(), static_cast<int32_t>(table.size())));
  std::vector<float> a(cov_parameter_count(&shape)), b(a.size()), other(a.size());
  CHECK_OK(cov_initial_parameters(&shape, 0x123456789abcdefull, a.data(), a.size()));
  CHECK_OK(cov_initial_parameters(&shape, 0x123456789abcdefull, b.data(), b.size()));
  CHECK_OK(cov_initial_parameters(&shape, 1, other.data(), other.size()));
  CHECK_SAME(a.data(), b.data(), a.size() * sizeof(float));
  CHECK(a != other);
  uint64_t end = 0;
  for (size_t t = 0; t < table.size(); ++t) {
    const cov_tensor_info& tensor = table[t];
    CHECK(tensor.offset == end);
    end += tensor.length;
    double square = 0;
    for (uint64_t i = 0; i < tensor.length; ++i)
      square += static_cast<double>(a[tensor.offset + i]) * a[tensor.offset + i];
    const double rms = std::sqrt(square / static_cast<double>(tensor.length));
    const bool residual =
        std::strstr(tensor.name, "o_proj") || std::strstr(tensor.name, "down_proj");
    const double expected = tensor.rank == 1 ? 1.0 : residual ? 0.02 / std::sqrt(6.0) : 0.02;
    CHECK_NEAR(rms, expected, 0.05 * expected);
    // The definition in tensors.h, spelled out for one element.
    if (tensor.rank == 2) {
      const uint64_t i = tensor.length / 2;
      const uint32_t key[2] = {0x89abcdefu, 0x01234567u};
      const uint32_t counter[4] = {static_cast<uint32_t>(i), 0, static_cast<uint32_t>(t),
                                   0x494e4954u};
      uint32_t x[4];
      cov_philox4x32(key, counter, x);
      int64_t sum = -262140;
      for (uint32_t word : x) sum += (word & 0xffff) + (word >> 16);
      const double std = residual ? 0.02 / std::sqrt(2.0 * shape.layer_count) : 0.02;
      const double scale = std / std::sqrt(8.0 * 4294967295.0 / 12.0);
      CHECK(a[tensor.offset + i] == static_cast<float>(static_cast<double>(sum) * scale));
    }
  }
  CHECK(end == a.size());
}

void test_shape_errors() {
  const auto expect_invalid = [](auto change) {
    cov_model_shape shape = tiny_shape();
    change(shape);
    CHECK_CODE(cov_shape_check(&shape), COV_INVALID_ARGUMENT);
    CHECK_CODE(cov_tensor_table(&shape, nullptr, 0), COV_INVALID_ARGUMENT);
    cov_model* model = nullptr;
    const cov_model_options options = {nullptr, 0, 1, 0, COV_COMPUTE_F32};
    CHECK_CODE(cov_model_create(&shape, &options, &model), COV_INVALID_ARGUMENT);
    CHECK(model == nullptr);
  };
  expect_invalid([](cov_model_shape& s) { s.vocab_size = 1; });
  expect_invalid([](cov_model_shape& s) { s.hidden_size = 0; });
  expect_invalid([](cov_model_shape& s) { s.hidden_size = -24; });
  expect_invalid([](cov_model_shape& s) { s.hidden_size = 26; });  // not 4 heads
  expect_invalid([](cov_model_shape& s) { s.hidden_size = 12; });  // odd head size
  expect_invalid([](cov_model_shape& s) { s.head_count = 0; });
  expect_invalid([](cov_model_shape& s) { s.kv_head_count = 3; });
  expect_invalid([](cov_model_shape& s) { s.kv_head_count = 0; });
  expect_invalid([](cov_model_shape& s) { s.layer_count = 0; });
  expect_invalid([](cov_model_shape& s) { s.layer_count = INT32_MAX; });
  expect_invalid([](cov_model_shape& s) { s.intermediate_size = 0; });
  expect_invalid([](cov_model_shape& s) { s.max_positions = 0; });
  expect_invalid([](cov_model_shape& s) { s.tie_word_embeddings = 2; });
  expect_invalid([](cov_model_shape& s) { s.rope_theta = 0.5; });
  expect_invalid([](cov_model_shape& s) { s.rope_theta = NAN; });
  expect_invalid([](cov_model_shape& s) { s.rms_norm_eps = -1; });
  CHECK_CODE(cov_shape_check(nullptr), COV_INVALID_ARGUMENT);
}

}  // namespace

int main() {
  test_known_answers();
  test_seeded();
  test_initial_parameters();
  test_shape_errors();
  TEST_MAIN_END("engine/rng");
}
