// Every CPU path of the activation codecs gives the bytes and values of their description, written
// down here a second time, for values of all magnitudes, and the same verdict on any bytes.
#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <vector>

#include "covenant/activation.h"
#include "covenant/model.h"
#include "sparse/fixtures.h"

using namespace covenant_test;

namespace {

using Values = std::vector<float>;

constexpr int32_t kKinds[] = {COV_ACTIVATION_BF16, COV_ACTIVATION_INT8, COV_ACTIVATION_INT4};
constexpr const char* kPaths[] = {"portable", "avx2", "avx512"};

void transform(float* block) {
  for (int half = 1; half < 64; half *= 2) {
    for (int i = 0; i < 64; ++i) {
      if (i & half) continue;
      const float a = block[i], b = block[i + half];
      block[i] = a + b;
      block[i + half] = a - b;
    }
  }
  for (int i = 0; i < 64; ++i) block[i] *= 0.125f;
}

float from_bf16(uint32_t bits) { return std::bit_cast<float>(bits << 16); }

// The code of one block of n values as covenant/activation.h describes it.
void describe(int32_t kind, const float* values, int32_t n, std::vector<uint8_t>& out) {
  if (kind == COV_ACTIVATION_BF16) {
    for (int32_t i = 0; i < n; ++i) {
      const auto bits = std::bit_cast<uint32_t>(values[i]);
      const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
      out.push_back(static_cast<uint8_t>(rounded));
      out.push_back(static_cast<uint8_t>(rounded >> 8));
    }
    return;
  }
  float block[64] = {};
  std::copy_n(values, n, block);
  if (kind == COV_ACTIVATION_INT4) transform(block);
  const int32_t coded = kind == COV_ACTIVATION_INT4 ? 64 : n;
  const float most = kind == COV_ACTIVATION_INT4 ? 7 : 127;
  float largest = 0;
  for (int32_t i = 0; i < coded; ++i) largest = std::max(largest, std::fabs(block[i]));
  const uint32_t scale = (std::bit_cast<uint32_t>(largest / most) + 0xffff) >> 16;
  out.push_back(static_cast<uint8_t>(scale));
  out.push_back(static_cast<uint8_t>(scale >> 8));
  for (int32_t i = 0; i < coded; ++i) {
    const float quotient = scale == 0 ? 0 : std::nearbyint(block[i] / from_bf16(scale));
    const auto code = static_cast<int32_t>(std::clamp(quotient, -most, most));
    if (kind == COV_ACTIVATION_INT8) {
      out.push_back(static_cast<uint8_t>(code));
    } else if (i % 2 == 0) {
      out.push_back(static_cast<uint8_t>(code & 15));
    } else {
      out.back() = static_cast<uint8_t>(out.back() | (code & 15) << 4);
    }
  }
}

Values draw(Random& random, size_t count, uint32_t kind) {
  Values out(count);
  const double scale = std::exp2(static_cast<double>(random.below(240)) - 130);
  for (float& value : out) {
    switch (kind) {
      case 0:
        value = static_cast<float>(random.laplace());
        break;
      case 1:  // around one power of two, down to the subnormal ones
        value = static_cast<float>(random.laplace() * scale);
        break;
      case 2:  // subnormal
        value = std::bit_cast<float>(random.below(1u << 18) | random.below(2) << 31);
        break;
      case 3:  // ties of the rounding, in both directions
        value = 0.5f * static_cast<float>(static_cast<int32_t>(random.below(255)) - 127);
        break;
      default:
        value = random.below(9) == 0 ? 1e38f : -0.0f;
    }
  }
  return out;
}

void paths_follow_the_description() {
  Random random(5);
  for (int round = 0; round < 600; ++round) {
    const int32_t kind = kKinds[round % 3];
    const int32_t rows = 1 + static_cast<int32_t>(random.below(3));
    const int32_t width = 1 + static_cast<int32_t>(random.below(200));
    const uint32_t mixture = random.below(kind == COV_ACTIVATION_INT4 ? 4 : 5);
    const Values values = draw(random, static_cast<size_t>(rows * width), mixture);
    std::vector<uint8_t> expected;
    for (int32_t row = 0; row < rows; ++row) {
      for (int32_t at = 0; at < width; at += 64)
        describe(kind, &values[static_cast<size_t>(row * width + at)], std::min(64, width - at),
                 expected);
    }
    Values first;
    for (const char* path : kPaths) {
      if (cov_set_cpu_path(path).code != COV_OK) continue;
      uint64_t bytes = 0;
      CHECK_OK(cov_activation_size(kind, rows, width, &bytes));
      CHECK(bytes == COV_ACTIVATION_HEADER_BYTES + expected.size());
      std::vector<uint8_t> payload(bytes);
      CHECK_OK(cov_activation_encode(kind, values.data(), rows, width, 1, payload.data(), bytes));
      CHECK_SAME(payload.data() + COV_ACTIVATION_HEADER_BYTES, expected.data(), expected.size());
      Values decoded(values.size());
      CHECK_OK(cov_activation_decode(kind, payload.data(), bytes, rows, width, 1, decoded.data()));
      if (first.empty()) first = decoded;
      CHECK_SAME(decoded.data(), first.data(), 4 * first.size());
    }
    CHECK_OK(cov_set_cpu_path(nullptr));
  }
}

// What is wrong is seen in each place of a row, whole blocks and the last one.
void bad_values_are_seen_everywhere() {
  const float bad[] = {std::numeric_limits<float>::quiet_NaN(),
                       std::bit_cast<float>(0x7fffffffu),  // what a GPU's arithmetic gives
                       std::bit_cast<float>(0xffffffffu), std::bit_cast<float>(0x7f800001u),
                       -std::numeric_limits<float>::infinity(), 3.4e38f};
  for (const char* path : kPaths) {
    if (cov_set_cpu_path(path).code != COV_OK) continue;
    for (const int32_t kind : kKinds) {
      uint64_t bytes = 0;
      CHECK_OK(cov_activation_size(kind, 1, 130, &bytes));
      std::vector<uint8_t> payload(bytes);
      for (const float value : bad) {
        for (size_t at = 0; at < 130; ++at) {
          Values values(130, 1.0f);
          values[at] = value;
          CHECK_CODE(cov_activation_encode(kind, values.data(), 1, 130, 1, payload.data(), bytes),
                     COV_NON_FINITE);
        }
      }
    }
  }
  CHECK_OK(cov_set_cpu_path(nullptr));
}

// Up to 2^118 whatever the encoder of int4 writes decodes; a lone value may be eight times as large,
// as a rotation spreads it, and what is larger is refused, not written.
void int4_has_a_largest_value() {
  Random random(7);
  uint64_t bytes = 0;
  CHECK_OK(cov_activation_size(COV_ACTIVATION_INT4, 1, 64, &bytes));
  std::vector<uint8_t> payload(bytes);
  const auto encode = [&](const Values& values) {
    return cov_activation_encode(COV_ACTIVATION_INT4, values.data(), 1, 64, 1, payload.data(),
                                 bytes);
  };
  Values decoded(64);
  const auto decode = [&] {
    return cov_activation_decode(COV_ACTIVATION_INT4, payload.data(), bytes, 1, 64, 1,
                                 decoded.data());
  };
  for (const char* path : kPaths) {
    if (cov_set_cpu_path(path).code != COV_OK) continue;
    for (int round = 0; round < 65; ++round) {
      Values values(64);
      for (size_t i = 0; i < 64; ++i) {
        // Rows of the Hadamard matrix, each of which comes together in one place; then any signs.
        const bool negative = round < 64 ? std::popcount(i & static_cast<size_t>(round)) % 2 == 1
                                         : random.below(2) == 1;
        values[i] = negative ? -0x1p118f : 0x1p118f;
      }
      CHECK_OK(encode(values));
      CHECK_OK(decode());
      for (size_t i = 0; i < 64; ++i)
        CHECK_NEAR(decoded[i], values[i], round < 64 ? 0x1p112f : 0x1p120f);
    }
    Values lone(64);
    lone[9] = 0x1p124f;
    CHECK_OK(encode(lone));
    CHECK_OK(decode());
    CHECK_NEAR(decoded[9] / lone[9], 1, 0.01);
    lone[9] = 0x1.000002p124f;
    CHECK_CODE(encode(lone), COV_NON_FINITE);
    // The largest scale with the largest codes: all 64 sums meet in one value, which is finite.
    lone[9] = 0x1p124f;
    CHECK_OK(encode(lone));
    std::fill(payload.begin() + COV_ACTIVATION_HEADER_BYTES + 2, payload.end(), uint8_t{0x77});
    CHECK_OK(decode());
    CHECK(std::isfinite(decoded[0]) && decoded[0] > 0x1p123f);
  }
  CHECK_OK(cov_set_cpu_path(nullptr));
}

void paths_agree_on_any_bytes() {
  Random random(6);
  int accepted = 0, refused = 0;
  for (int round = 0; round < 6000; ++round) {
    const int32_t kind = kKinds[round % 3];
    uint64_t bytes = 0;
    CHECK_OK(cov_activation_size(kind, 1, 130, &bytes));
    const Values values = draw(random, 130, random.below(4));
    std::vector<uint8_t> payload(bytes);
    CHECK_OK(cov_activation_encode(kind, values.data(), 1, 130, 1, payload.data(), bytes));
    for (uint32_t c = 0; c < 1 + random.below(2); ++c) {
      payload[COV_ACTIVATION_HEADER_BYTES +
              random.below(static_cast<uint32_t>(bytes - COV_ACTIVATION_HEADER_BYTES))] =
          random.below(3) == 0 ? 0x80 : static_cast<uint8_t>(random.below(256));
    }
    Values first;
    int32_t verdict = -1;
    for (const char* path : kPaths) {
      if (cov_set_cpu_path(path).code != COV_OK) continue;
      Values decoded(130);
      const int32_t code =
          cov_activation_decode(kind, payload.data(), bytes, 1, 130, 1, decoded.data()).code;
      if (verdict < 0) {
        verdict = code;
        first = decoded;
        (code == COV_OK ? accepted : refused)++;
      }
      CHECK(code == verdict);
      if (code != COV_OK) continue;
      CHECK_SAME(decoded.data(), first.data(), 4 * first.size());
      for (const float value : decoded) CHECK(std::isfinite(value));
    }
    CHECK_OK(cov_set_cpu_path(nullptr));
  }
  CHECK(accepted > 1000);
  CHECK(refused > 300);
}

}  // namespace

int main() {
  paths_follow_the_description();
  bad_values_are_seen_everywhere();
  int4_has_a_largest_value();
  paths_agree_on_any_bytes();
  TEST_MAIN_END("codec/activation_paths");
}
