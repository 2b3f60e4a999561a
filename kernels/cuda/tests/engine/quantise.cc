// Rows as bytes and weights rounded to bf16 against the CPU's, to the bit, with rows that the quantiser tells apart;
// rows that are made and quantised at once against the same in two steps; a norm of few rows against one of many.
#include "engine/quantise.cuh"

#include <bit>
#include <cmath>
#include <limits>

#include "check.h"
#include "device_test.h"
#include "engine/buffers.h"
#include "engine/gemm_int8.cuh"
#include "engine/rmsnorm.cuh"
#include "engine/rmsnorm_row.cuh"
#include "engine/support.h"
#include "engine/swiglu.cuh"
#include "generate/kernels.h"
#include "generate/weights.h"

namespace {

using namespace covenant::cuda;
using namespace covenant_test;

// Rows with a line of each kind that the quantiser tells apart.
std::vector<float> odd_rows(int64_t rows, int64_t k) {
  std::vector<float> x = Numbers(9).floats(rows * k, 3.0f);
  const auto row = [&](int64_t i) { return x.data() + i * k; };
  std::fill_n(row(0), k, 0.0f);
  std::fill_n(row(1), k, 1e-31f);
  row(2)[k - 1] = std::numeric_limits<float>::quiet_NaN();
  row(3)[k / 2] = -std::numeric_limits<float>::infinity();
  row(4)[0] = 3e38f;
  for (int64_t i = 0; i < k; ++i) row(5)[i] *= 1e-30f;
  row(5)[k / 2] = 1e-30f;
  for (int64_t i = 0; i < k; ++i) row(6)[i] = (static_cast<float>(i % 255) - 127.0f) / 2.0f;  // ties
  row(6)[0] = 63.5f;
  return x;
}

void check_quantiser(Device& device, int64_t k) {
  constexpr int64_t kRows = 9;
  const std::vector<float> x = odd_rows(kRows, k);
  const int64_t stride = int8_stride(k);
  // One float further on: rows that do not lie at 16 bytes.
  for (const int64_t shift : {0, 1}) {
    std::vector<float> shifted(static_cast<size_t>(shift), 7.0f);
    shifted.insert(shifted.end(), x.begin(), x.end());
    const Buffer<float> dx = on_device(device, shifted);
    Buffer<int8_t> bytes = on_device(device, std::vector<int8_t>(static_cast<size_t>(kRows * stride), 99));
    Buffer<float> scales(device, kRows);
    quantise(device.stream(), dx.data() + shift, kRows, k, bytes.data(), scales.data());
    const std::vector<int8_t> found = from_device(device, bytes);
    const std::vector<float> found_scales = from_device(device, scales);
    std::vector<uint8_t> expected(static_cast<size_t>(k + 4));
    for (int64_t i = 0; i < kRows; ++i) {
      const float scale = covenant::generation_kernels().quantise(x.data() + i * k, k, expected.data());
      const float own = found_scales[static_cast<size_t>(i)];
      CHECK(std::bit_cast<uint32_t>(own) == std::bit_cast<uint32_t>(scale) || (std::isnan(own) && std::isnan(scale)));
      for (int64_t l = 0; l < stride; ++l)
        CHECK(found[static_cast<size_t>(i * stride + l)] == (l < k ? expected[static_cast<size_t>(l)] - 128 : 0));
    }
    CHECK(std::isnan(found_scales[2]) && std::isnan(found_scales[3]) && found_scales[1] == 0.0f);
  }
}

// The CPU's rounding of weights, subnormal numbers and NaN included.
void check_rounding(Device& device) {
  std::vector<float> x = Numbers(4).floats(1000);
  for (const uint32_t bits : {1u, 0x80000001u, 0x7fffffu, 0x8000u, 0x18000u, 0x7f800000u, 0xff800000u, 0x7f800001u,
                              0xffc12345u, 0x7f7fffffu, 0x3f808000u, 0x3f818000u, 0x80000000u})
    x.push_back(std::bit_cast<float>(bits));
  const Buffer<float> dx = on_device(device, x), wide(device, x.size());
  const Buffer<uint16_t> rounded(device, x.size());
  const auto count = static_cast<int64_t>(x.size());
  round_weights(device.stream(), dx.data(), count, rounded.data());
  round_weights(device.stream(), dx.data(), count, wide.data());
  const std::vector<uint16_t> found = from_device(device, rounded);
  const std::vector<float> widened = from_device(device, wide);
  for (size_t i = 0; i < x.size(); ++i) {
    CHECK(found[i] == covenant::bf16_of(x[i]));
    CHECK(std::bit_cast<uint32_t>(widened[i]) == uint32_t{found[i]} << 16);
  }
}

struct Quantised {
  Buffer<int8_t> bytes;
  Buffer<float> scales, values;
  Quantised(Device& device, int64_t rows, int64_t k)
      : bytes(on_device(device, std::vector<int8_t>(static_cast<size_t>(rows * int8_stride(k)), 99))),
        scales(device, static_cast<uint64_t>(rows)),
        values(device, static_cast<uint64_t>(rows * k)) {}
};

void check_same(Device& device, const Quantised& a, const Quantised& b) {
  CHECK(from_device(device, a.bytes) == from_device(device, b.bytes));
  CHECK_SAME(from_device(device, a.scales).data(), from_device(device, b.scales).data(), a.scales.bytes());
}

void check_norm(Device& device, int64_t d) {
  constexpr int64_t kRows = 4;
  std::vector<float> values = Numbers(5).floats(kRows * d, 2.0f);
  values[static_cast<size_t>(2 * d)] = NAN;
  const Buffer<float> x = on_device(device, values), gain = on_device(device, Numbers(6).floats(d));
  const Buffer<int32_t> index = on_device(device, std::vector<int32_t>{3, 0, 2});
  for (const int32_t* const rows : {static_cast<const int32_t*>(index.data()), static_cast<const int32_t*>(nullptr)}) {
    Quantised once(device, 3, d), twice(device, 3, d);
    rmsnorm_quantise(device.stream(), x.data(), rows, gain.data(), 1e-5f, 3, d, once.values.data(),
                     once.bytes.data(), once.scales.data());
    rmsnorm(device.stream(), x.data(), rows, gain.data(), 1e-5f, 3, d, {twice.values.data(), nullptr}, nullptr);
    quantise(device.stream(), twice.values.data(), 3, d, twice.bytes.data(), twice.scales.data());
    check_same(device, once, twice);
  }
  // The first of so many rows that they go another way.
  constexpr int64_t kMany = kNormRowsFew + 3;
  const Buffer<int32_t> all = on_device(device, std::vector<int32_t>(kMany, 1));
  Buffer<float> many(device, static_cast<uint64_t>(kMany * d)), few(device, static_cast<uint64_t>(d));
  Buffer<float> many_r(device, kMany), few_r(device, 1);
  const Buffer<uint16_t> many16(device, many.count()), few16(device, few.count());
  for (const bool rounded : {false, true}) {
    const auto rows = [&](const Buffer<float>& y, const Buffer<uint16_t>& y16) {
      return rounded ? Rows{nullptr, y16.data()} : Rows{y.data(), nullptr};
    };
    rmsnorm(device.stream(), x.data(), all.data(), gain.data(), 1e-5f, kMany, d, rows(many, many16), many_r.data());
    rmsnorm(device.stream(), x.data(), all.data(), gain.data(), 1e-5f, 1, d, rows(few, few16), few_r.data());
    CHECK(from_device(device, few_r)[0] == from_device(device, many_r)[0]);
  }
  CHECK_SAME(from_device(device, few).data(), from_device(device, many).data(), few.bytes());
  CHECK_SAME(from_device(device, few16).data(), from_device(device, many16).data(), few16.bytes());
}

void check_gate(Device& device, int64_t f) {
  const Buffer<float> gate_up = on_device(device, Numbers(7).floats(2 * 2 * f, 3.0f));
  Quantised once(device, 2, f), twice(device, 2, f);
  swiglu_quantise(device.stream(), gate_up.data(), 2, f, once.values.data(), once.bytes.data(), once.scales.data());
  swiglu(device.stream(), gate_up.data(), 2, f, {twice.values.data(), nullptr});
  quantise(device.stream(), twice.values.data(), 2, f, twice.bytes.data(), twice.scales.data());
  check_same(device, once, twice);
}

}  // namespace

int main() {
  if (!have_device()) return kSkipped;
  Device device(0, 0);
  for (const int64_t k : {1, 7, 24, 100, 1028, 1500}) check_quantiser(device, k);
  quantise(device.stream(), nullptr, 0, 8, nullptr, nullptr);
  check_rounding(device);
  for (const int64_t d : {1, 18, 31, 520}) check_norm(device, d);
  for (const int64_t f : {1, 18, 31, 2061}) check_gate(device, f);
  if (!kSanitized) {
    check_norm(device, kNormRowMax);
    check_norm(device, kNormRowMax + 1);
    check_gate(device, 24577);  // too long for shared memory
  }
  TEST_MAIN_END("cuda quantise");
}
