// Products of few rows in fp32 have the bits of the product of any number, and with a matrix in bf16 those of the same
// matrix widened: sizes around a block and a line, sums that begin at -0, and nothing written below the rows.
#include "engine/gemm_f32_few.cuh"

#include "check.h"
#include "device_test.h"
#include "engine/buffers.h"
#include "engine/gemm.cuh"
#include "engine/support.h"

namespace {

using namespace covenant::cuda;
using namespace covenant_test;

struct Problem {
  int64_t n, k;
  std::vector<float> x, w, before;
  std::vector<uint16_t> w16;
  Problem(int64_t n_, int64_t k_) : n(n_), k(k_) {
    x = Numbers(1).floats((kFewRowsF32Max + 1) * k);
    before = Numbers(3).floats((kFewRowsF32Max + 1) * n);
    for (size_t i = 0; i < before.size(); i += 3) before[i] = -0.0f;
    std::fill_n(x.begin() + k, k, -0.0f);  // sums of a row stay at -0
    for (const float value : Numbers(2).floats(n * k)) {
      w16.push_back(static_cast<uint16_t>(std::bit_cast<uint32_t>(value) >> 16));
      w.push_back(widen(w16.back()));
    }
    for (int64_t i = 0; i < k; ++i) {  // all sums of a line stay at -0 where the row is -0
      w[static_cast<size_t>(i)] = 1.0f;
      w16[static_cast<size_t>(i)] = 0x3f80;
    }
  }
};

void check(Device& device, const Problem& p) {
  const Buffer<float> x = on_device(device, p.x), w = on_device(device, p.w);
  const Buffer<uint16_t> w16 = on_device(device, p.w16);
  for (const int64_t m : {1, 2, 7, 8, 9, 16, 17, 31, 33, 64}) {
    for (const bool with_init : {false, true}) {
      Buffer<float> plain = on_device(device, p.before), widened = on_device(device, p.before);
      Buffer<float> few = on_device(device, p.before), few16 = on_device(device, p.before);
      const auto init = [&](const Buffer<float>& c) { return with_init ? c.data() : nullptr; };
      Product all = {m, p.n, p.k, x.data(), p.k, 1, w.data(), 1, p.k, init(plain), plain.data(), p.n};
      multiply(device.stream(), all);
      all.b = nullptr;
      all.b16 = w16.data();
      all.c = widened.data();
      all.init = init(widened);
      multiply(device.stream(), all);
      ProductFew product = {m, p.n, p.k, x.data(), w.data(), nullptr, init(few), few.data()};
      CHECK(takes_few_rows(product) == (p.k % 4 == 0));
      if (takes_few_rows(product)) multiply_few_rows(device.stream(), product);
      ProductFew product16 = {m, p.n, p.k, x.data(), nullptr, w16.data(), init(few16), few16.data()};
      CHECK(takes_few_rows(product16) == (p.k % 8 == 0));
      if (takes_few_rows(product16)) multiply_few_rows(device.stream(), product16);
      const std::vector<float> expected = from_device(device, plain);
      const size_t bytes = expected.size() * sizeof(float);
      CHECK_SAME(from_device(device, widened).data(), expected.data(), bytes);
      if (p.k % 4 == 0) CHECK_SAME(from_device(device, few).data(), expected.data(), bytes);
      if (p.k % 8 == 0) CHECK_SAME(from_device(device, few16).data(), expected.data(), bytes);
    }
  }
  const ProductFew unaligned = {1, p.n, p.k - 4, x.data() + 1, w.data(), nullptr, nullptr, nullptr};
  CHECK(!takes_few_rows(unaligned));
  const ProductFew many = {65, p.n, p.k, x.data(), w.data(), nullptr, nullptr, nullptr};
  CHECK(!takes_few_rows(many));
}

}  // namespace

int main() {
  if (!have_device()) return kSkipped;
  Device device(0, 0);
  check(device, {37, 72});
  check(device, {16, 1032});
  check(device, {5, 12});
  check(device, {19, 31});
  multiply_few_rows(device.stream(), {0, 4, 4, nullptr, nullptr, nullptr, nullptr, nullptr});
  TEST_MAIN_END("cuda gemm_f32_few");
}
