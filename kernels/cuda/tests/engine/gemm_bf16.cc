// Products in bf16 against fp64 sums of the same rounded numbers: the three layouts of a linear layer,
// sizes around a tile and odd ones, sums, rounded results and SwiGLU. Rows do not depend on each other.
#include "engine/gemm_bf16.cuh"

#include <bit>
#include <cmath>

#include "check.h"
#include "device_test.h"
#include "engine/buffers.h"
#include "engine/support.h"

namespace {

using namespace covenant::cuda;
using namespace covenant_test;

std::vector<uint16_t> numbers(int64_t count, uint32_t seed) {
  std::vector<uint16_t> values;
  for (const float x : Numbers(seed).floats(count))
    values.push_back(static_cast<uint16_t>(std::bit_cast<uint32_t>(x) >> 16));
  return values;
}

struct Case {
  int64_t m, n, k;
};

// Element (i, l) of an operand of `lines` along k, or across it.
struct Operand {
  std::vector<uint16_t> values;
  int64_t stride;
  bool along_k;
  Operand(int64_t lines, int64_t k, bool along, uint32_t seed)
      : values(numbers(lines * k, seed)), stride(along ? k : lines), along_k(along) {}
  double at(int64_t i, int64_t l) const {
    return static_cast<double>(
        widen(values[static_cast<size_t>(along_k ? i * stride + l : l * stride + i)]));
  }
};

double expected(const Operand& a, const Operand& b, int64_t i, int64_t j, int64_t k) {
  double sum = 0;
  for (int64_t l = 0; l < k; ++l) sum += a.at(i, l) * b.at(j, l);
  return sum;
}

void check_layout(Device& device, const Case& c, bool a_along, bool b_along) {
  const Operand a(c.m, c.k, a_along, 1), b(c.n, c.k, b_along, 2);
  const Buffer<uint16_t> da = on_device(device, a.values), db = on_device(device, b.values);
  const std::vector<float> before = Numbers(3).floats(c.m * c.n);
  Buffer<float> sums = on_device(device, before), plain(device, before.size());
  Buffer<uint16_t> rounded(device, before.size());
  const ProductBf16 base = {c.m, c.n, c.k, {da.data(), a.stride, a_along},
                            {db.data(), b.stride, b_along}};
  ProductBf16 p = base;
  p.init = p.c = sums.data();
  multiply(device.stream(), p);
  p = base;
  p.c = plain.data();
  multiply(device.stream(), p);
  p = base;
  p.rounded = rounded.data();
  multiply(device.stream(), p);
  const std::vector<float> added = from_device(device, sums), found = from_device(device, plain);
  const std::vector<uint16_t> found16 = from_device(device, rounded);
  double worst = 0, worst_added = 0, worst16 = 0;
  for (int64_t i = 0; i < c.m; ++i) {
    for (int64_t j = 0; j < c.n; ++j) {
      const auto at = static_cast<size_t>(i * c.n + j);
      const double e = expected(a, b, i, j, c.k);
      const auto off = [&](double x, double from) {
        return std::isfinite(x) ? std::fabs(x - from) : INFINITY;
      };
      worst = std::fmax(worst, off(found[at], e));
      worst_added = std::fmax(worst_added, off(added[at], e + before[at]));
      worst16 = std::fmax(worst16, off(widen(found16[at]), e) / (std::fabs(e) + 1e-3));
    }
  }
  CHECK(worst < 1e-4);
  CHECK(worst_added < 1e-4);
  CHECK(worst16 < 0.0045);
  // The last row alone.
  if (!a_along) return;
  Buffer<float> one(device, static_cast<uint64_t>(c.n));
  p = base;
  p.m = 1;
  p.a.data += (c.m - 1) * c.k;
  p.c = one.data();
  multiply(device.stream(), p);
  CHECK_SAME(from_device(device, one).data(), found.data() + (c.m - 1) * c.n,
             static_cast<size_t>(c.n) * sizeof(float));
}

void check_gate(Device& device, const Case& c) {
  const int64_t f = c.n;
  const Operand x(c.m, c.k, true, 4), w(2 * f, c.k, true, 5);
  const Buffer<uint16_t> dx = on_device(device, x.values), dw = on_device(device, w.values);
  Buffer<uint16_t> gate_up(device, static_cast<uint64_t>(c.m * 2 * f));
  Buffer<uint16_t> plain(device, gate_up.count()), hidden(device, static_cast<uint64_t>(c.m * f));
  ProductBf16 p = {c.m, 2 * f, c.k, {dx.data(), c.k, true}, {dw.data(), c.k, true}};
  p.rounded = plain.data();
  multiply(device.stream(), p);
  p.rounded = gate_up.data();
  p.hidden = hidden.data();
  multiply(device.stream(), p);
  const std::vector<uint16_t> both = from_device(device, gate_up), h = from_device(device, hidden);
  CHECK(both == from_device(device, plain));
  double worst = 0;
  for (int64_t i = 0; i < c.m; ++i) {
    for (int64_t j = 0; j < f; ++j) {
      const double g = widen(both[static_cast<size_t>(i * 2 * f + j)]);
      const double u = widen(both[static_cast<size_t>(i * 2 * f + f + j)]);
      const double e = g / (1 + std::exp(-g)) * u;
      worst = std::fmax(worst, std::fabs(widen(h[static_cast<size_t>(i * f + j)]) - e) /
                                   (std::fabs(e) + 1e-3));
    }
  }
  CHECK(worst < 0.0045);
}

}  // namespace

int main() {
  if (!have_device()) return kSkipped;
  Device device(0, 0);
  // Within one tile, exact tiles, several with rests, more rows than one band, and sizes that are no
  // multiples of 8.
  const Case cases[] = {{1, 1, 1},    {64, 64, 32},  {256, 128, 160}, {264, 136, 72},
                        {13, 37, 29}, {257, 131, 33}, {2200, 8, 8}};
  for (const Case& c : cases) {
    check_layout(device, c, true, true);
    check_layout(device, c, true, false);
    check_layout(device, c, false, false);
    check_gate(device, c);
  }
  TEST_MAIN_END("cuda gemm_bf16");
}
