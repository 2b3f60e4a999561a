// Products of bf16 operands: rounding, packing and the micro-kernels of every path against their
// definition, and the same bits for any number of rows.
#include <array>
#include <vector>

#include "engine/gemm.h"
#include "engine/isa/table.h"
#include "support.h"

using namespace covenant_test;
using covenant::Bf16;
using covenant::bf16_padded;
using covenant::KernelTable;

namespace {

struct Path {
  std::string name;
  const KernelTable* table;
};

std::vector<Path> paths() {
  std::vector<Path> result;
  for (const std::string& path : available_paths()) {
    CHECK_OK(cov_set_cpu_path(path.c_str()));
    result.push_back({path, &covenant::kernels()});
  }
  cov_set_cpu_path(nullptr);
  return result;
}

float widen(Bf16 x) {
  const uint32_t bits = static_cast<uint32_t>(x) << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

float from_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

// Definition of the rounding: the nearer of the two neighbours, the even one when halfway.
Bf16 reference_round(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  const Bf16 down = static_cast<Bf16>(bits >> 16);
  if (std::isnan(x)) return static_cast<Bf16>(down | 0x40);
  if (std::fabs(x) < 1.17549435e-38f) return static_cast<Bf16>(down & 0x8000);
  const uint32_t rest = bits & 0xffffu;
  return static_cast<Bf16>(down + (rest > 0x8000u || (rest == 0x8000u && (down & 1))));
}

void test_rounding() {
  std::vector<float> x = {0.0f, -0.0f, 1.0f, -1.0f, INFINITY, -INFINITY, NAN, -NAN, 3e38f, -3.4e38f,
                          1e-40f, -1e-39f, 1.17549435e-38f, 1.1754942e-38f};
  for (uint32_t high : {0x3f80u, 0x3f81u, 0x7f7fu, 0xff7fu, 0x0080u, 0x8080u, 0x7f80u})
    for (uint32_t low : {0u, 1u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu})
      x.push_back(from_bits(high << 16 | low));
  Numbers numbers(51);
  for (int i = 0; i < 20000; ++i) x.push_back(from_bits(numbers.word()));
  for (const Path& path : paths())
    for (const size_t n : {x.size(), size_t{1}, size_t{15}, size_t{33}}) {
      std::vector<Bf16> y(n + 9, 7);
      path.table->round_bf16(x.data(), static_cast<int64_t>(n), static_cast<int64_t>(n + 7),
                             y.data());
      size_t wrong = 0;
      for (size_t i = 0; i < n; ++i) wrong += y[i] != reference_round(x[i]);
      for (size_t i = n; i < n + 7; ++i) wrong += y[i] != 0;
      CHECK(wrong == 0 && y[n + 7] == 7);
    }
}

// Results rounded on the way out are the fp32 results rounded.
void test_rows(int64_t n) {
  Numbers numbers(static_cast<uint32_t>(n));
  const std::vector<float> a = numbers.floats(n, 3), b = numbers.floats(n), c = numbers.floats(n);
  const size_t size = static_cast<size_t>(n);
  for (const Path& path : paths()) {
    const KernelTable& t = *path.table;
    std::vector<float> y(3 * size);
    std::vector<Bf16> rounded(3 * size), expected(3 * size);
    const auto check = [&](size_t count) {
      for (size_t i = 0; i < count; ++i) expected[i] = reference_round(y[i]);
      CHECK_SAME(rounded.data(), expected.data(), count * sizeof(Bf16));
    };
    const float r = t.rmsnorm(a.data(), b.data(), 1e-5f, n, y.data());
    CHECK(r == t.rmsnorm_bf16(a.data(), b.data(), 1e-5f, n, rounded.data()));
    check(size);
    t.swiglu(a.data(), b.data(), n, y.data());
    t.swiglu_bf16(a.data(), b.data(), n, rounded.data());
    check(size);
    t.swiglu_backward(a.data(), b.data(), c.data(), n, &y[0], &y[size], &y[2 * size]);
    t.swiglu_backward_bf16(a.data(), b.data(), c.data(), n, &rounded[0], &rounded[size],
                           &rounded[2 * size]);
    check(3 * size);
  }
}

// Packed panels hold the rounded matrix, zeros around it.
void test_packing(int64_t n, int64_t k) {
  Numbers numbers(static_cast<uint32_t>(100 * n + k));
  const std::vector<float> w = numbers.floats(n * k);
  const int64_t padded = bf16_padded(k), panels = (n + 31) / 32;
  const auto at = [&](const std::vector<Bf16>& packed, int64_t j, int64_t c) {
    return packed[static_cast<size_t>(c / 32 * 32 * padded + j / 2 * 64 + c % 32 * 2 + j % 2)];
  };
  for (const Path& path : paths()) {
    std::vector<Bf16> transposed(static_cast<size_t>(panels * 32 * padded), 7), zipped = transposed;
    path.table->pack_transposed_bf16(w.data(), n, k, k, transposed.data());
    std::vector<float> stored(static_cast<size_t>(n * k));  // (k, n): the matrix itself
    std::vector<Bf16> rounded(stored.size());
    for (int64_t j = 0; j < k; ++j)
      for (int64_t c = 0; c < n; ++c)
        stored[static_cast<size_t>(j * n + c)] = w[static_cast<size_t>(c * k + j)];
    path.table->round_bf16(stored.data(), n * k, n * k, rounded.data());
    std::vector<Bf16> panel = transposed;
    for (int64_t first = 0; first < n; first += 32) {
      const int64_t columns = std::min<int64_t>(32, n - first);
      path.table->pack_panel_bf16(stored.data() + first, columns, k, n, &panel[first * padded]);
      path.table->zip_panel_bf16(rounded.data() + first, columns, k, n, &zipped[first * padded]);
    }
    size_t wrong = 0;
    for (int64_t j = 0; j < padded; ++j)
      for (int64_t c = 0; c < 32 * panels; ++c)
        wrong += at(transposed, j, c) !=
                 (j < k && c < n ? rounded[static_cast<size_t>(j * n + c)] : 0);
    CHECK(wrong == 0);
    CHECK_SAME(panel.data(), transposed.data(), panel.size() * sizeof(Bf16));
    CHECK_SAME(zipped.data(), transposed.data(), zipped.size() * sizeof(Bf16));
  }
}

void test_product(int64_t m, int64_t n, int64_t k, bool with_init) {
  Numbers numbers(static_cast<uint32_t>(m * 1000 + n * 10 + k));
  const std::vector<float> x = numbers.floats(m * k), w = numbers.floats(n * k);
  const std::vector<float> init = numbers.floats(m * n);
  const int64_t row = covenant::bf16_row(k), panels = (n + 31) / 32;
  std::vector<float> first;
  for (const Path& path : paths()) {
    const KernelTable& t = *path.table;
    std::vector<Bf16> a(static_cast<size_t>(m * row)), b(static_cast<size_t>(panels * 32 * row));
    for (int64_t i = 0; i < m; ++i)
      t.round_bf16(&x[static_cast<size_t>(i * k)], k, bf16_padded(k),
                   &a[static_cast<size_t>(i * row)]);
    t.pack_transposed_bf16(w.data(), n, k, k, b.data());
    // Two guard columns after each row: they must stay untouched.
    std::vector<float> c(static_cast<size_t>(m * (n + 2)), 7.0f);
    t.gemm_bf16(m, n, bf16_padded(k), a.data(), row, b.data(), 32 * bf16_padded(k),
                with_init ? init.data() : nullptr, n, c.data(), n + 2);
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        double sum = with_init ? init[static_cast<size_t>(i * n + j)] : 0.0;
        for (int64_t l = 0; l < k; ++l)
          sum += static_cast<double>(widen(reference_round(x[static_cast<size_t>(i * k + l)]))) *
                 widen(reference_round(w[static_cast<size_t>(j * k + l)]));
        CHECK_NEAR(c[static_cast<size_t>(i * (n + 2) + j)], sum,
                   1e-5 * std::sqrt(static_cast<double>(k)));
      }
      CHECK(c[static_cast<size_t>(i * (n + 2) + n)] == 7.0f);
      CHECK(c[static_cast<size_t>(i * (n + 2) + n + 1)] == 7.0f);
    }
    // The same from the transpose of A.
    const int64_t column = covenant::bf16_row(m);
    std::vector<Bf16> turned(static_cast<size_t>(k * column), 0x7fc0);  // NaN between the rows
    for (int64_t i = 0; i < m; ++i)
      for (int64_t l = 0; l < k; ++l)
        turned[static_cast<size_t>(l * column + i)] = a[static_cast<size_t>(i * row + l)];
    std::vector<float> same(c.size(), 7.0f);
    t.gemm_bf16_transposed(m, n, k, turned.data(), column, b.data(), 32 * bf16_padded(k),
                           with_init ? init.data() : nullptr, n, same.data(), n + 2);
    CHECK_SAME(same.data(), c.data(), c.size() * sizeof(float));
    // The order of additions is one, except on AMX.
    if (first.empty()) first = c;
    if (path.name != "amx") CHECK_SAME(first.data(), c.data(), c.size() * sizeof(float));
    // Any row alone, and sums carried on in place.
    std::vector<float> alone(static_cast<size_t>(n));
    for (const int64_t i : {int64_t{0}, m / 2, m - 1}) {
      t.gemm_bf16(1, n, bf16_padded(k), &a[static_cast<size_t>(i * row)], row, b.data(),
                  32 * bf16_padded(k), with_init ? &init[static_cast<size_t>(i * n)] : nullptr, n,
                  alone.data(), n);
      CHECK_SAME(alone.data(), &c[static_cast<size_t>(i * (n + 2))],
                 static_cast<size_t>(n) * sizeof(float));
    }
  }
}

// NaN and infinity reach exactly the rows and columns they belong to.
void test_non_finite() {
  constexpr int64_t kRows = 14, kColumns = 40, kInner = 50;
  Numbers numbers(6);
  std::vector<float> x = numbers.floats(kRows * kInner), w = numbers.floats(kColumns * kInner);
  x[3 * kInner + 49] = NAN;
  w[39 * kInner + 7] = INFINITY;
  const int64_t row = covenant::bf16_row(kInner), padded = bf16_padded(kInner);
  for (const Path& path : paths()) {
    std::vector<Bf16> a(static_cast<size_t>(kRows * row)), b(static_cast<size_t>(64 * padded));
    for (int64_t i = 0; i < kRows; ++i)
      path.table->round_bf16(&x[static_cast<size_t>(i * kInner)], kInner, padded,
                             &a[static_cast<size_t>(i * row)]);
    path.table->pack_transposed_bf16(w.data(), kColumns, kInner, kInner, b.data());
    std::vector<float> c(static_cast<size_t>(kRows * kColumns));
    path.table->gemm_bf16(kRows, kColumns, padded, a.data(), row, b.data(), 32 * padded, nullptr, 0,
                          c.data(), kColumns);
    for (int64_t i = 0; i < kRows; ++i)
      for (int64_t j = 0; j < kColumns; ++j)
        CHECK(std::isfinite(c[static_cast<size_t>(i * kColumns + j)]) == (i != 3 && j != 39));
  }
}

// The layers' entry points: any number of threads, operands rounded on the way in, weight gradient.
void test_linear(int64_t m, int64_t n, int64_t k) {
  Numbers numbers(9);
  std::vector<float> x = numbers.floats(m * k), w = numbers.floats(n * k);
  std::vector<float> dy = numbers.floats(m * n);
  using covenant::Compute;
  std::vector<float> y_first, dx_first, dw_first;
  for (const int threads : {1, 3}) {
    covenant::ThreadPool pool(threads);
    std::vector<char> forward(static_cast<size_t>(covenant::packed_bytes(Compute::kBf16, k, n)));
    std::vector<char> backward(static_cast<size_t>(covenant::packed_bytes(Compute::kBf16, n, k)));
    covenant::PackedMatrix pf = {Compute::kBf16, k, n, forward.data()};
    covenant::PackedMatrix pb = {Compute::kBf16, n, k, backward.data()};
    covenant::pack_forward(pool, w.data(), pf);
    covenant::pack_backward(pool, w.data(), pb);
    std::vector<Bf16> x16(static_cast<size_t>(covenant::bf16_size(m, k)));
    std::vector<Bf16> dy16(static_cast<size_t>(covenant::bf16_size(m, n)));
    const auto xo = covenant::operand(pool, Compute::kBf16, x.data(), m, k, x16.data());
    const auto dyo = covenant::operand(pool, Compute::kBf16, dy.data(), m, n, dy16.data());
    std::vector<float> y(static_cast<size_t>(m * n)), dx(x.size()), dw(w.size(), 0.25f);
    covenant::multiply(pool, xo, m, pf, nullptr, y.data());
    covenant::multiply(pool, dyo, m, pb, x.data(), dx.data());
    std::vector<float> scratch(
        static_cast<size_t>(covenant::gradient_scratch_size(Compute::kBf16, m, k)));
    covenant::multiply_gradient(pool, Compute::kBf16, dyo, xo, m, n, k, dw.data(), scratch.data());
    if (y_first.empty()) {
      y_first = y, dx_first = dx, dw_first = dw;
    }
    CHECK_SAME(y.data(), y_first.data(), y.size() * sizeof(float));
    CHECK_SAME(dx.data(), dx_first.data(), dx.size() * sizeof(float));
    CHECK_SAME(dw.data(), dw_first.data(), dw.size() * sizeof(float));
  }
  const auto round = [](float v) { return static_cast<double>(widen(reference_round(v))); };
  for (int64_t i = 0; i < m; i += 7)
    for (int64_t j = 0; j < n; j += 5) {
      double sum = 0;
      for (int64_t l = 0; l < k; ++l) sum += round(x[i * k + l]) * round(w[j * k + l]);
      CHECK_NEAR(y_first[static_cast<size_t>(i * n + j)], sum, 1e-4);
    }
  for (int64_t i = 0; i < m; i += 7)
    for (int64_t l = 0; l < k; l += 3) {
      double sum = x[static_cast<size_t>(i * k + l)];
      for (int64_t j = 0; j < n; ++j) sum += round(dy[i * n + j]) * round(w[j * k + l]);
      CHECK_NEAR(dx_first[static_cast<size_t>(i * k + l)], sum, 1e-4);
    }
  for (int64_t j = 0; j < n; j += 5)
    for (int64_t l = 0; l < k; l += 3) {
      double sum = 0.25;
      for (int64_t i = 0; i < m; ++i) sum += round(dy[i * n + j]) * round(x[i * k + l]);
      CHECK_NEAR(dw_first[static_cast<size_t>(j * k + l)], sum, 3e-4);
    }
}

}  // namespace

int main() {
  test_rounding();
  for (const int64_t n : {1, 2, 15, 16, 17, 100, 257}) test_rows(n);
  for (const auto& s : {std::array<int64_t, 2>{1, 1}, {32, 32}, {33, 31}, {64, 64}, {100, 47},
                        {7, 130}})
    test_packing(s[0], s[1]);
  for (const bool init : {true, false})
    for (const auto& s : {std::array<int64_t, 3>{1, 1, 1},
                          {1, 150, 33},
                          {2, 129, 7},
                          {3, 260, 16},
                          {12, 33, 5},
                          {13, 65, 190},
                          {17, 31, 64},
                          {33, 64, 129},
                          {30, 100, 1100},
                          {101, 130, 2100}})
      test_product(s[0], s[1], s[2], init);
  test_non_finite();
  test_linear(1, 1, 1);
  test_linear(300, 70, 45);
  test_linear(97, 300, 131);
  TEST_MAIN_END("engine/bf16");
}
