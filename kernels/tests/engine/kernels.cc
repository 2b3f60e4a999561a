// Inner kernels: every CPU path gives the bits of the portable one on odd sizes, and the portable
// one is right against double precision.
#include <array>
#include <functional>
#include <vector>

#include "engine/head.h"
#include "engine/isa/table.h"
#include "support.h"

using namespace covenant_test;
using covenant::KernelTable;

namespace {

std::vector<const KernelTable*> tables() {
  std::vector<const KernelTable*> result;
  for (const std::string& path : available_paths()) {
    CHECK_OK(cov_set_cpu_path(path.c_str()));
    CHECK(path == cov_cpu_path());
    result.push_back(&covenant::kernels());
  }
  cov_set_cpu_path(nullptr);
  return result;
}

// Runs `compute` with every table and checks that the outputs have the same bytes.
std::vector<float> same_everywhere(
    const std::function<void(const KernelTable&, std::vector<float>&)>& compute) {
  std::vector<float> first;
  for (const KernelTable* table : tables()) {
    std::vector<float> result;
    compute(*table, result);
    if (first.empty()) first = result;
    CHECK(first.size() == result.size());
    CHECK_SAME(first.data(), result.data(), first.size() * sizeof(float));
  }
  return first;
}

void test_gemm(int64_t m, int64_t n, int64_t k, bool row_major, bool with_init) {
  Numbers numbers(static_cast<uint32_t>(m * 1000 + n * 10 + k));
  const std::vector<float> a = numbers.floats(m * k), w = numbers.floats(n * k);
  const std::vector<float> init = numbers.floats(m * n);
  const auto at = [&](int64_t i, int64_t j) {
    return static_cast<size_t>(row_major ? i * k + j : j * m + i);
  };
  const std::vector<float> c =
      same_everywhere([&](const KernelTable& table, std::vector<float>& out) {
        const int64_t panels = (n + 31) / 32;
        std::vector<float> packed(static_cast<size_t>(panels * 32 * k), NAN);
        table.pack_transposed(w.data(), n, k, k, packed.data());
        // Two guard columns after each row: they must stay untouched.
        out.assign(static_cast<size_t>(m * (n + 2)), 7.0f);
        table.gemm(m, n, k, a.data(), row_major ? k : 1, row_major ? 1 : m, packed.data(), 32 * k,
                   with_init ? init.data() : nullptr, n, out.data(), n + 2);
      });
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      double sum = with_init ? init[static_cast<size_t>(i * n + j)] : 0.0;
      for (int64_t x = 0; x < k; ++x)
        sum += static_cast<double>(a[at(i, x)]) * w[static_cast<size_t>(j * k + x)];
      CHECK_NEAR(c[static_cast<size_t>(i * (n + 2) + j)], sum,
                 1e-5 * std::sqrt(static_cast<double>(k)));
    }
    CHECK(c[static_cast<size_t>(i * (n + 2) + n)] == 7.0f);
    CHECK(c[static_cast<size_t>(i * (n + 2) + n + 1)] == 7.0f);
  }
}

// Row i of a product does not depend on how many rows are computed with it.
void test_gemm_rows() {
  Numbers numbers(3);
  constexpr int64_t kRows = 40, kColumns = 150, kInner = 67;
  const std::vector<float> a = numbers.floats(kRows * kInner),
                           w = numbers.floats(kColumns * kInner);
  for (const KernelTable* table : tables()) {
    std::vector<float> packed(5 * 32 * kInner), all(kRows * kColumns), some(kRows * kColumns);
    table->pack_transposed(w.data(), kColumns, kInner, kInner, packed.data());
    table->gemm(kRows, kColumns, kInner, a.data(), kInner, 1, packed.data(), 32 * kInner, nullptr,
                0, all.data(), kColumns);
    for (int64_t rows = 1; rows <= 13; ++rows) {
      table->gemm(rows, kColumns, kInner, a.data() + 5 * kInner, kInner, 1, packed.data(),
                  32 * kInner, nullptr, 0, some.data(), kColumns);
      CHECK_SAME(some.data(), all.data() + 5 * kColumns,
                 static_cast<size_t>(rows * kColumns) * sizeof(float));
    }
  }
}

void test_pack_panel() {
  Numbers numbers(4);
  for (const int64_t columns : {1, 16, 31, 32}) {
    const std::vector<float> w = numbers.floats(9 * 40);
    const std::vector<float> out =
        same_everywhere([&](const KernelTable& t, std::vector<float>& o) {
          o.assign(9 * 32, NAN);
          t.pack_panel(w.data(), columns, 9, 40, o.data());
        });
    for (int64_t j = 0; j < 9; ++j)
      for (int64_t c = 0; c < 32; ++c)
        CHECK(out[static_cast<size_t>(j * 32 + c)] ==
              (c < columns ? w[static_cast<size_t>(j * 40 + c)] : 0.0f));
  }
}

void test_exp() {
  std::vector<float> x;
  for (double v = -90; v < 90; v += 0.00371) x.push_back(static_cast<float>(v));
  for (float v : {0.0f, -0.0f, -86.0f, 88.0f, -1e30f, -INFINITY, 1e-20f}) x.push_back(v);
  const std::vector<float> y = same_everywhere([&](const KernelTable& t, std::vector<float>& out) {
    out.resize(x.size());
    t.exp(x.data(), static_cast<int64_t>(x.size()), out.data());
  });
  for (const KernelTable* table : tables()) {
    float nan = NAN;
    table->exp(&nan, 1, &nan);
    CHECK(std::isnan(nan));
  }
  double worst = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    if (x[i] < -86.0f) {
      CHECK(y[i] == 0.0f);
      continue;
    }
    const double exact = std::exp(static_cast<double>(std::fmin(x[i], 88.0f)));
    worst = std::fmax(worst, std::fabs(y[i] - exact) / exact);
  }
  CHECK(worst < 2 * 1.1920929e-7 / 2);  // 2 ulp, the ulp being at least 2^-24 of the value
  for (double v = 1e-300; v < 1e300; v *= 1.37)
    CHECK_NEAR(covenant::exact_log(v), std::log(v), 4e-16 * std::fabs(std::log(v)) + 1e-16);
}

// Each row kernel on sizes around the vector width.
void test_rows(int64_t n) {
  Numbers numbers(static_cast<uint32_t>(n));
  const std::vector<float> x = numbers.floats(n, 3), gain = numbers.floats(n),
                           dy = numbers.floats(n);
  const std::vector<float> res = numbers.floats(n);
  const size_t size = static_cast<size_t>(n);
  const auto joined = [&](std::vector<float>& out,
                          std::initializer_list<std::vector<float>> parts) {
    for (const std::vector<float>& part : parts) out.insert(out.end(), part.begin(), part.end());
  };
  const std::vector<float> norm = same_everywhere([&](const KernelTable& t,
                                                      std::vector<float>& out) {
    std::vector<float> y(size), dx(size), dgain(size, 0.5f);
    const float r = t.rmsnorm(x.data(), gain.data(), 1e-5f, n, y.data());
    t.rmsnorm_backward(x.data(), gain.data(), dy.data(), res.data(), r, n, dx.data(), dgain.data());
    joined(out,
           {y,
            dx,
            dgain,
            {r, t.dot(x.data(), dy.data(), n), static_cast<float>(t.square_sum(x.data(), n))}});
  });
  double square = 0;
  for (float v : x) square += static_cast<double>(v) * v;
  const double r = 1.0 / std::sqrt(square / static_cast<double>(n) + 1e-5);
  for (size_t i = 0; i < size; ++i) CHECK_NEAR(norm[i], x[i] * r * gain[i], 2e-6);
  same_everywhere([&](const KernelTable& t, std::vector<float>& out) {
    std::vector<float> h(size), dgate(size), dup(size), again(size), sum = res;
    t.swiglu(x.data(), gain.data(), n, h.data());
    t.swiglu_backward(x.data(), gain.data(), dy.data(), n, again.data(), dgate.data(), dup.data());
    CHECK_SAME(h.data(), again.data(), size * sizeof(float));
    t.add(x.data(), n, sum.data());
    joined(out, {h, dgate, dup, sum});
  });
  const std::vector<float> soft =
      same_everywhere([&](const KernelTable& t, std::vector<float>& out) {
        std::vector<float> s = x, p = x, dp = dy;
        s.resize(size + 5, 9.0f);
        p.resize(size + 5, 9.0f);
        dp.resize(size + 5, 9.0f);
        const float lse = t.softmax(s.data(), 0.6f, n, n + 5, s.data());
        // Results in bf16 are the fp32 ones rounded.
        std::vector<covenant::Bf16> p16(size + 5, 9), ds16 = p16, soft16 = p16, expected = p16;
        std::vector<float> again = x;
        CHECK(lse == t.softmax_bf16(again.data(), 0.6f, n, n + 5, soft16.data()));
        t.round_bf16(s.data(), n + 5, n + 5, expected.data());
        CHECK(soft16 == expected);
        t.softmax_backward_bf16(p.data(), dp.data(), 0.6f, lse, 0.1f, n, n + 5, p16.data(),
                                ds16.data());
        t.softmax_backward(p.data(), dp.data(), 0.6f, lse, 0.1f, n, n + 5, p.data(), dp.data());
        t.round_bf16(p.data(), n + 5, n + 5, expected.data());
        CHECK(p16 == expected);
        t.round_bf16(dp.data(), n + 5, n + 5, expected.data());
        CHECK(ds16 == expected);
        joined(out, {s, p, dp, {lse}});
      });
  double total = 0;
  for (float v : x) total += std::exp(0.6 * v);
  CHECK_NEAR(soft.back(), std::log(total), 1e-6 * (1 + std::fabs(std::log(total))));
  for (size_t i = 0; i < size; ++i) CHECK_NEAR(soft[i], std::exp(0.6 * x[i]) / total, 1e-6);
  for (size_t i = size; i < size + 5; ++i) CHECK(soft[i] == 0.0f);
  same_everywhere([&](const KernelTable& t, std::vector<float>& out) {
    std::vector<float> z = x, w(size);
    const covenant::RowStats stats = t.logit_stats(z.data(), 1.25f, n);
    t.sample_weights(z.data(), stats.max, 0.8f, n, w.data());
    std::vector<covenant::Bf16> rounded(size), expected(size);
    t.logit_gradient_bf16(z.data(), 1.25f, 2.0f, -0.3f, n - 1, n, rounded.data());
    t.logit_gradient(z.data(), 1.25f, 2.0f, -0.3f, n - 1, n, z.data());
    t.round_bf16(z.data(), n, n, expected.data());
    CHECK(rounded == expected);
    joined(out, {z, w, {stats.max, stats.sum, stats.dot}});
  });
  same_everywhere([&](const KernelTable& t, std::vector<float>& out) {
    std::vector<float> p = x, g = dy, m = gain, v = res;
    for (float& value : v) value = std::fabs(value);
    t.adamw(p.data(), g.data(), m.data(), v.data(), n,
            {0.99f, 0.9f, 0.1f, 0.95f, 0.05f, 0.01f, 3.0f, 1e-8f, 0.5f});
    joined(out, {p, g, m, v});
  });
  if (n % 2 == 0) {
    const std::vector<float> rope =
        same_everywhere([&](const KernelTable& t, std::vector<float>& out) {
          out = x;
          out.insert(out.end(), dy.begin(), dy.end());  // two heads
          t.rope(out.data(), gain.data(), res.data(), 2, n);
        });
    const size_t half = size / 2;
    for (size_t i = 0; i < half; ++i) {
      CHECK_NEAR(rope[i], x[i] * gain[i] - x[i + half] * res[i], 2e-6);
      CHECK_NEAR(rope[i + half], x[i + half] * gain[i] + x[i] * res[i], 2e-6);
    }
    same_everywhere([&](const KernelTable& t, std::vector<float>& out) {
      out = x;
      t.rope_backward(out.data(), gain.data(), res.data(), 1, n);
    });
  }
}

}  // namespace

int main() {
  for (const bool row_major : {true, false})
    for (const bool init : {true, false})
      for (const auto& s : {std::array<int64_t, 3>{1, 1, 1},
                            {1, 150, 33},
                            {2, 129, 7},
                            {3, 260, 16},
                            {5, 31, 40},
                            {6, 32, 64},
                            {12, 33, 5},
                            {13, 65, 19},
                            {30, 100, 48},
                            // Several blocks of rows and steps, as they lie and put into tiles.
                            {101, 130, 1100},
                            {101, 130, 1280}})
        test_gemm(s[0], s[1], s[2], row_major, init);
  test_gemm_rows();
  test_pack_panel();
  test_exp();
  for (const int64_t n : {1, 2, 7, 15, 16, 17, 31, 32, 48, 100, 257, 600}) test_rows(n);
  TEST_MAIN_END("engine/kernels");
}
