// Attention in bf16 against the fp32 form (which has the CPU's bits) of the same rounded numbers: every
// way of loading, every tile width, lengths around a tile, groups of 1 to 8. Tier C: 1 % of the largest
// number. Tier B: a sequence has the same bits alone and among others, and so have reruns.
#include <algorithm>
#include <cmath>

#include "check.h"
#include "device_test.h"
#include "engine/buffers.h"
#include "engine/attention.cuh"
#include "engine/attention_bf16.cuh"
#include "engine/support.h"

namespace {

using namespace covenant::cuda;
using namespace covenant_test;
using covenant::AttentionShape;

struct Numbers16 {
  std::vector<uint16_t> rounded;
  std::vector<float> exact;
  Numbers16(int64_t count, float scale, uint32_t seed) {
    for (const float x : Numbers(seed).floats(count)) {
      const uint32_t bits = std::bit_cast<uint32_t>(x * scale);
      rounded.push_back(static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16));
      exact.push_back(widen(rounded.back()));
    }
  }
};

void near(const std::vector<uint16_t>& found, const std::vector<float>& expected, const char* what,
          const AttentionRows& rows) {
  double largest = 0, magnitude = 1e-30;
  for (size_t i = 0; i < found.size(); ++i) {
    const double d = std::fabs(static_cast<double>(widen(found[i])) - static_cast<double>(expected[i]));
    if (!(d <= largest)) largest = d;
    magnitude = std::fmax(magnitude, std::fabs(static_cast<double>(expected[i])));
  }
  if (!(largest <= 0.01 * magnitude))
    std::fprintf(stderr, "%s, head size %d, %d heads, length %d: off by %g of %g\n", what,
                 static_cast<int>(rows.shape.dim), static_cast<int>(rows.shape.heads),
                 static_cast<int>(rows.length), largest, magnitude);
  CHECK(largest <= 0.01 * magnitude);
}

struct Results {
  std::vector<uint16_t> out, dqkv;
  bool operator==(const Results&) const = default;
};

Results run(Device& device, const AttentionRows& rows, const std::vector<uint16_t>& qkv,
            const std::vector<uint16_t>& dout) {
  const Buffer<uint16_t> x = on_device(device, qkv), dy = on_device(device, dout);
  Buffer<uint16_t> out(device, dout.size()), dx(device, qkv.size());
  Buffer<float> lse(device, static_cast<uint64_t>(rows.sequences * rows.length * rows.shape.heads));
  attention_bf16(device, rows, x.data(), out.data(), lse.data());
  attention_bf16_backward(device, rows, x.data(), out.data(), lse.data(), dy.data(), dx.data());
  return {from_device(device, out), from_device(device, dx)};
}

void check_case(Device& device, const AttentionRows& rows) {
  const int64_t count = rows.sequences * rows.length;
  const Numbers16 qkv(count * rows.shape.width(), 2.0f, 3);
  const Numbers16 dout(count * rows.shape.query_width(), 1.0f, 4);
  const Results found = run(device, rows, qkv.rounded, dout.rounded);

  const Buffer<float> x = on_device(device, qkv.exact), dy = on_device(device, dout.exact);
  Buffer<float> out(device, dout.exact.size()), dx(device, qkv.exact.size());
  Buffer<float> lse(device, static_cast<uint64_t>(count * rows.shape.heads));
  attention(device, rows, x.data(), out.data(), lse.data());
  attention_backward(device, rows, x.data(), out.data(), lse.data(), dy.data(), dx.data());
  near(found.out, from_device(device, out), "output", rows);
  near(found.dqkv, from_device(device, dx), "gradient", rows);

  CHECK(run(device, rows, qkv.rounded, dout.rounded) == found);
  const AttentionRows one = {rows.shape, 1, rows.length};
  const auto part = [&](const std::vector<uint16_t>& all, int64_t width) {
    return std::vector<uint16_t>(all.end() - rows.length * width, all.end());
  };
  const int64_t width = rows.shape.width(), out_width = rows.shape.query_width();
  const Results last = run(device, one, part(qkv.rounded, width), part(dout.rounded, out_width));
  CHECK(last.out == part(found.out, out_width));
  CHECK(last.dqkv == part(found.dqkv, width));
}

constexpr uint16_t kBad[] = {0x7fc0, 0x7f80, 0xff80};  // NaN and the infinities

bool all_nan(const std::vector<uint16_t>& x, int64_t first, int64_t count) {
  return std::all_of(x.begin() + first, x.begin() + first + count,
                     [](uint16_t value) { return std::isnan(widen(value)); });
}

// A position that is not finite leaves what does not depend on it as it was, to the bit.
void causal(Device& device, const AttentionRows& rows, int64_t position) {
  const int64_t width = rows.shape.width(), out_width = rows.shape.query_width();
  const Numbers16 qkv(rows.length * width, 2.0f, 3), dout(rows.length * out_width, 1.0f, 4);
  const Results clean = run(device, rows, qkv.rounded, dout.rounded);
  const auto same = [](const std::vector<uint16_t>& a, const std::vector<uint16_t>& b, int64_t first,
                       int64_t after) {
    return std::equal(a.begin() + first, a.begin() + after, b.begin() + first);
  };
  for (const uint16_t value : kBad) {
    // Of (q | k | v), seen by the position itself and later ones.
    std::vector<uint16_t> bad = qkv.rounded;
    std::fill_n(bad.begin() + position * width, width, value);
    const Results found = run(device, rows, bad, dout.rounded);
    CHECK(same(found.out, clean.out, 0, position * out_width));
    CHECK(all_nan(found.out, position * out_width, out_width));
    CHECK(all_nan(found.out, (rows.length - 1) * out_width, out_width));
    for (int64_t row = 0; row < position; ++row)
      CHECK(same(found.dqkv, clean.dqkv, row * width, row * width + out_width));
    // Of the gradient of the output, which queries have for themselves.
    std::vector<uint16_t> bad_dout = dout.rounded;
    std::fill_n(bad_dout.begin() + position * out_width, out_width, value);
    const Results back = run(device, rows, qkv.rounded, bad_dout);
    CHECK(back.out == clean.out);
    for (int64_t row = 0; row < rows.length; ++row)
      CHECK(row == position
                ? all_nan(back.dqkv, row * width, out_width)
                : same(back.dqkv, clean.dqkv, row * width, row * width + out_width));
  }
}

}  // namespace

int main() {
  if (!have_device()) return kSkipped;
  Device device(0, 0);
  const AttentionRows cases[] = {
      {{2, 1, 64}, 2, 1},   {{1, 1, 64}, 1, 64},  {{2, 1, 64}, 1, 129}, {{3, 1, 32}, 2, 65},
      {{8, 1, 16}, 1, 67},  {{2, 2, 6}, 3, 13},   {{4, 2, 2}, 1, 70},   {{2, 1, 80}, 1, 66},
      {{1, 1, 128}, 2, 97}, {{2, 1, 100}, 1, 40}, {{4, 1, 8}, 5, 3},
  };
  for (const AttentionRows& rows : cases) check_case(device, rows);
  for (const int64_t position : {0, 5, 16, 47, 66}) causal(device, {{2, 1, 32}, 1, 67}, position);
  causal(device, {{1, 1, 128}, 1, 70}, 37);
  causal(device, {{2, 2, 6}, 1, 19}, 17);
  // Numbers that are not finite stay so and nothing is written outside.
  const AttentionRows rows = {{1, 1, 8}, 1, 5};
  std::vector<uint16_t> qkv(static_cast<size_t>(rows.length * rows.shape.width()), 0x3f80);
  qkv[0] = 0x7fc0;
  const Results found = run(device, rows, qkv, std::vector<uint16_t>(40, 0x3f80));
  CHECK(std::isnan(widen(found.out[0])));
  CHECK(widen(found.out[8]) == 1.0f);
  TEST_MAIN_END("cuda attention");
}
