// Products of bytes against sums in 64 bits, to the bit: every form of tile, sizes around them and odd ones, the
// largest bytes and nothing written below the rows.
#include "engine/gemm_int8.cuh"

#include "check.h"
#include "device_test.h"
#include "engine/buffers.h"
#include "engine/support.h"

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
  CHECK_SAME(from_device(device, plain).data(), expected.data(), expected.size() * sizeof(float));
  CHECK_SAME(from_device(device, added).data(), expected_added.data(), expected.size() * sizeof(float));
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
  TEST_MAIN_END("cuda gemm_int8");
}
