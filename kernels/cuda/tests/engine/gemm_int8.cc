// Products of bytes against sums in 64 bits, to the bit: every form of tile, sizes around them and odd ones, the
// largest bytes, rows of zeros and such that are not finite. The quantiser against the CPU's.
#include "engine/gemm_int8.cuh"

#include <bit>
#include <cmath>
#include <limits>

#include "check.h"
#include "device_test.h"
#include "engine/buffers.h"
#include "engine/quantise.cuh"
#include "engine/support.h"
#include "generate/kernels.h"
#include "generate/weights.h"

namespace {

using namespace covenant::cuda;
using namespace covenant_test;

struct Side {
  std::vector<int8_t> bytes;  // lines int8_stride(k) apart
  std::vector<float> scales;
};

// Bytes of all kinds; `extreme` gives each line one of -128, 127 alone.
Side side(int64_t lines, int64_t k, uint32_t seed, bool extreme) {
  const int64_t stride = int8_stride(k);
  Numbers numbers(seed);
  Side made = {std::vector<int8_t>(static_cast<size_t>(lines * stride)), numbers.floats(lines)};
  for (int64_t i = 0; i < lines; ++i) {
    const int32_t end = (i + seed) % 2 == 0 ? -128 : 127;
    for (int64_t l = 0; l < k; ++l)
      made.bytes[static_cast<size_t>(i * stride + l)] = static_cast<int8_t>(extreme ? end : numbers.below(256) - 128);
  }
  return made;
}

void check_product(Device& device, int64_t m, int64_t n, int64_t k, bool extreme) {
  const int64_t stride = int8_stride(k);
  const Side x = side(m, k, 1, extreme), w = side(n, k, 2, extreme);
  const Buffer<int8_t> dx = on_device(device, x.bytes), dw = on_device(device, w.bytes);
  const Buffer<float> dxs = on_device(device, x.scales), dws = on_device(device, w.scales);
  const std::vector<float> before = Numbers(3).floats((m + 1) * n);
  Buffer<float> added = on_device(device, before), plain = on_device(device, before);
  ProductInt8 p = {m,           n,          k, stride, dx.data(), dxs.data(), dw.data(),
                   dws.data(), nullptr,    plain.data()};
  multiply(device.stream(), p);
  p.init = p.c = added.data();
  multiply(device.stream(), p);
  std::vector<float> expected(before), expected_added(before);
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = 0; j < n; ++j) {
      int64_t sum = 0;
      for (int64_t l = 0; l < k; ++l)
        sum += int64_t{x.bytes[static_cast<size_t>(i * stride + l)]} * w.bytes[static_cast<size_t>(j * stride + l)];
      const float scale = x.scales[static_cast<size_t>(i)] * w.scales[static_cast<size_t>(j)];
      const auto at = static_cast<size_t>(i * n + j);
      expected[at] = static_cast<float>(sum) * scale;
      expected_added[at] = before[at] + expected[at];
    }
  // Nothing is written below the rows.
  CHECK_SAME(from_device(device, plain).data(), expected.data(), expected.size() * sizeof(float));
  CHECK_SAME(from_device(device, added).data(), expected_added.data(), expected.size() * sizeof(float));
}

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

}  // namespace

int main() {
  if (!have_device()) return kSkipped;
  Device device(0, 0);
  for (const int64_t m : {1, 15, 16, 17, 33, 64}) {
    check_product(device, m, 37, 29, false);
    check_product(device, m, 64, 160, false);
  }
  check_product(device, 3, 5, 1, false);
  check_product(device, 2, 16, 1700, true);  // more steps than stages
  check_product(device, 65, 131, 129, false);
  check_product(device, 130, 260, 300, true);
  check_product(device, 1, 1, 70001, true);  // sums beyond 2^30
  if (!kSanitized)
    for (const int64_t m : {1, 20, 50}) check_product(device, m, 8203, 40, false);
  check_product(device, 0, 5, 7, false);
  for (const int64_t k : {1, 7, 24, 100, 1028, 1500}) check_quantiser(device, k);
  quantise(device.stream(), nullptr, 0, 8, nullptr, nullptr);
  check_rounding(device);
  TEST_MAIN_END("cuda gemm_int8");
}
