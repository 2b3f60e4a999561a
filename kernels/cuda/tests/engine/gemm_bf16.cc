// Products in bf16 against fp64 sums of the same rounded numbers: the three layouts of a linear layer,
// sizes around a tile and odd ones, sums, rounded results and SwiGLU. Rows do not depend on each other.
#include "engine/gemm_bf16.cuh"

#include <bit>
#include <cmath>
#include <tuple>

#include "check.h"
#include "device_test.h"
#include "engine/buffers.h"
#include "engine/gemm_bf16_few.cuh"
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

// The first rows by themselves have the bits of all together, which go another way: sums, sums added to what was
// there, and rounded ones.
void check_few_rows(Device& device, int64_t n, int64_t k) {
  constexpr int64_t kAll = kFewRowsMax + 6;
  const Operand a(kAll, k, true, 6), b(n, k, true, 7);
  const Buffer<uint16_t> da = on_device(device, a.values), db = on_device(device, b.values);
  const std::vector<float> before = Numbers(8).floats(kAll * n);
  const auto multiply_rows = [&](int64_t m) {
    Buffer<float> added = on_device(device, before), plain(device, before.size());
    Buffer<uint16_t> rounded(device, before.size());
    ProductBf16 p = {m, n, k, {da.data(), k, true}, {db.data(), k, true}};
    p.init = p.c = added.data();
    multiply(device.stream(), p);
    p.init = nullptr;
    p.c = plain.data();
    multiply(device.stream(), p);
    p.c = nullptr;
    p.rounded = rounded.data();
    multiply(device.stream(), p);
    return std::tuple(from_device(device, added), from_device(device, plain), from_device(device, rounded));
  };
  const auto [added, plain, rounded] = multiply_rows(kAll);
  for (const int64_t m : {1, 15, 16, 17, 31, 32, 33, 50, 64}) {
    const auto few = multiply_rows(m);
    const auto count = static_cast<size_t>(m * n);
    CHECK_SAME(std::get<0>(few).data(), added.data(), count * sizeof(float));
    CHECK_SAME(std::get<1>(few).data(), plain.data(), count * sizeof(float));
    CHECK_SAME(std::get<2>(few).data(), rounded.data(), count * sizeof(uint16_t));
    // Nothing is written below them.
    CHECK_SAME(std::get<0>(few).data() + count, before.data() + count, (before.size() - count) * sizeof(float));
  }
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
  check_few_rows(device, 72, 8);
  check_few_rows(device, 37, 1096);
  check_few_rows(device, 16, 64);
  if (!kSanitized) check_few_rows(device, 8203, 40);
  TEST_MAIN_END("cuda gemm_bf16");
}
