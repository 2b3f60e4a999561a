// Activation codecs on the device: the payloads, values and refusals of the CPU.
#include "covenant/activation.h"

#include <bit>
#include <limits>

#include "device_memory.h"
#include "sparse/fixtures.h"

namespace {

using namespace covenant_test;

using Values = std::vector<float>;
using Bytes = std::vector<uint8_t>;

constexpr int32_t kKinds[] = {COV_ACTIVATION_BF16, COV_ACTIVATION_INT8, COV_ACTIVATION_INT4};

cov_device* device = nullptr;

Bytes payload_for(int32_t kind, int32_t rows, int32_t width) {
  uint64_t bytes = 0;
  CHECK_OK(cov_activation_size(kind, rows, width, &bytes));
  return Bytes(bytes, 0xcd);
}

// Encodes and decodes on both sides; the results have equal bits, whatever the alignment.
void check_same(int32_t kind, const Values& values, int32_t rows, int32_t width, size_t skew) {
  Bytes expected = payload_for(kind, rows, width);
  Bytes found = expected;
  CHECK_OK(cov_activation_encode(kind, values.data(), rows, width, 1, expected.data(),
                                 expected.size()));
  const OnDevice input(device, values, skew);
  CHECK_OK(cov_device_activation_encode(device, kind, input.data(), rows, width, found.data(),
                                        found.size()));
  CHECK(found == expected);
  Values decoded(values.size());
  CHECK_OK(cov_activation_decode(kind, expected.data(), expected.size(), rows, width, 1,
                                 decoded.data()));
  const OnDevice output(device, Values(values.size(), -1.0f), skew);
  CHECK_OK(cov_device_activation_decode(device, kind, expected.data(), expected.size(), rows, width,
                                        output.data()));
  const Values back = output.read();
  CHECK_SAME(back.data(), decoded.data(), back.size() * sizeof(float));
}

void shapes() {
  Random random(1);
  for (const int32_t kind : kKinds) {
    for (const int32_t width : {1, 2, 3, 63, 64, 65, 66, 128, 321, 332}) {
      for (const int32_t rows : {0, 1, 3, 17}) {
        Values values = random.values(static_cast<size_t>(rows * width), 2);
        if (rows > 1) std::fill_n(values.begin(), width, 0.0f);
        if (rows > 2) values[static_cast<size_t>(2 * width)] = -500.0f;
        check_same(kind, values, rows, width, static_cast<size_t>(rows % 2));
      }
    }
  }
}

// Subnormal numbers, signed zeros, ties, and the largest that each kind takes.
void extremes() {
  const float least = std::numeric_limits<float>::denorm_min();
  for (const int32_t kind : kKinds) {
    const float large = kind == COV_ACTIVATION_INT4 ? 0x1p118f : 3.37e38f;
    for (const float scale : {large, 1.0f, 1e-30f, 1e-37f, 1e-40f, least}) {
      Values values;
      for (int i = 0; i < 70; ++i) {
        const float unit = static_cast<float>(i % 13 - 6) / 6.0f;
        values.push_back(i % 11 == 5 ? -0.0f : unit * scale);
      }
      check_same(kind, values, 1, 70, 0);
      check_same(kind, values, 70, 1, 1);
    }
    Values ties;
    for (int i = -127; i <= 127; ++i) ties.push_back(static_cast<float>(i) + 0.5f);
    ties.push_back(127.0f);
    check_same(kind, ties, 4, 64, 0);
  }
}

void refusals() {
  Random random(3);
  for (const int32_t kind : kKinds) {
    const Values values = random.values(3 * 100, 1);
    Bytes payload = payload_for(kind, 3, 100);
    for (const float bad : {NAN, std::bit_cast<float>(0x7fffffffu), std::bit_cast<float>(0xffffffffu),
                            INFINITY, -INFINITY, 3.4e38f}) {
      Values broken = values;
      broken[250] = bad;
      const OnDevice input(device, broken);
      Bytes own = payload;
      const cov_status expected = cov_activation_encode(kind, broken.data(), 3, 100, 1, own.data(),
                                                        own.size());
      CHECK_CODE(cov_device_activation_encode(device, kind, input.data(), 3, 100, own.data(),
                                              own.size()),
                 expected.code);
      CHECK(expected.code == COV_NON_FINITE);
    }
    const OnDevice input(device, values);
    CHECK_CODE(cov_device_activation_encode(device, kind, input.data(), 3, 100, payload.data(),
                                            payload.size() - 1),
               COV_INVALID_ARGUMENT);
    CHECK_OK(cov_device_activation_encode(device, kind, input.data(), 3, 100, payload.data(),
                                          payload.size()));
    const OnDevice output(device, values);
    const auto decode = [&](const Bytes& bytes, int32_t rows) {
      return cov_device_activation_decode(device, kind, bytes.data(), bytes.size(), rows, 100,
                                          output.data());
    };
    CHECK_CODE(decode(payload, 2), COV_MALFORMED);
    for (const size_t at : {0u, 4u, 8u, 12u}) {
      Bytes changed = payload;
      changed[at] ^= 1;
      CHECK_CODE(decode(changed, 3), COV_MALFORMED);
    }
    // Any bytes: refused by both, or decoded by both to the same.
    int refused = 0;
    for (int round = 0; round < 60; ++round) {
      Bytes changed = payload;
      for (uint32_t c = 0; c < 3; ++c) {
        const uint32_t at = 16 + random.below(static_cast<uint32_t>(changed.size() - 17));
        changed[at] = static_cast<uint8_t>(random.below(2) == 0 ? random.below(256) : 0x80);
        changed[at + 1] = static_cast<uint8_t>(random.below(2) == 0 ? random.below(256) : 0xff);
      }
      Values expected(values.size());
      const cov_status status = cov_activation_decode(kind, changed.data(), changed.size(), 3, 100,
                                                      1, expected.data());
      CHECK_CODE(decode(changed, 3), status.code);
      refused += status.code == COV_OK ? 0 : 1;
      if (status.code != COV_OK) continue;
      const Values found = output.read();
      CHECK_SAME(found.data(), expected.data(), found.size() * sizeof(float));
    }
    CHECK(refused > 0);
  }
  Bytes none(16);
  CHECK_CODE(cov_device_activation_encode(device, 3, nullptr, 0, 1, none.data(), 16),
             COV_INVALID_ARGUMENT);
}

}  // namespace

int main() {
  if (!have_device()) return kSkipped;
  const DevicePointer opened = open_device();
  device = opened.get();
  shapes();
  extremes();
  refusals();
  TEST_MAIN_END("cuda codec/activation");
}
