// The inner kernels of generation: the same bits on every path, near a double-precision reference,
// int8 within the error that rounding to bytes allows; odd sizes throughout.
#include "generate/kernels.h"

#include <cmath>
#include <vector>

#include "../engine/support.h"
#include "generate/weights.h"

using namespace covenant;
using namespace covenant_test;

namespace {

std::vector<const GenerationKernels*> tables() {
  std::vector<const GenerationKernels*> found;
  for (const char* name : {"portable", "avx2", "avx512", "avx512vnni"})
    if (const GenerationKernels* table = generation_kernels_named(name)) found.push_back(table);
  return found;
}

float widened(uint16_t bits) {
  const uint32_t word = static_cast<uint32_t>(bits) << 16;
  float x;
  std::memcpy(&x, &word, 4);
  return x;
}

struct Product {
  int64_t m, n, k;
  std::vector<float> x, w, residual;  // w (n, k)
  Product(int64_t rows, int64_t columns, int64_t inner, uint32_t seed)
      : m(rows), n(columns), k(inner) {
    Numbers numbers(seed);
    x = numbers.floats(m * k);
    w = numbers.floats(n * k, 0.3f);
    residual = numbers.floats(m * n);
  }
  int64_t panels() const { return (n + 31) / 32; }
};

std::vector<float> run_f32(const GenerationKernels& kernel, const Product& p, bool residual) {
  std::vector<float> packed(static_cast<size_t>(p.panels() * 32 * p.k));
  for (int64_t c = 0; c < p.n; ++c)
    for (int64_t j = 0; j < p.k; ++j)
      packed[static_cast<size_t>((c / 32 * p.k + j) * 32 + c % 32)] =
          p.w[static_cast<size_t>(c * p.k + j)];
  std::vector<float> out(static_cast<size_t>(p.m * p.n), 7.0f);
  kernel.linear_f32(p.m, p.n, p.k, p.x.data(), p.k, packed.data(),
                    residual ? p.residual.data() : nullptr, out.data(), p.n);
  return out;
}

std::vector<float> run_bf16(const GenerationKernels& kernel, const Product& p) {
  std::vector<uint16_t> packed(static_cast<size_t>(p.panels() * 32 * p.k));
  for (int64_t c = 0; c < p.n; ++c)
    for (int64_t j = 0; j < p.k; ++j)
      packed[static_cast<size_t>((c / 32 * p.k + j) * 32 + c % 16 * 2 + c % 32 / 16)] =
          bf16_of(p.w[static_cast<size_t>(c * p.k + j)]);
  std::vector<float> out(static_cast<size_t>(p.m * p.n), 7.0f);
  kernel.linear_bf16(p.m, p.n, p.k, p.x.data(), p.k, packed.data(), p.residual.data(), out.data(),
                     p.n);
  return out;
}

std::vector<float> run_int8(const GenerationKernels& kernel, const Product& p,
                            std::vector<float>& bound) {
  const int64_t fours = (p.k + 3) / 4, panel = fours * 128, stride = fours * 4 + 64;
  std::vector<int8_t> packed(static_cast<size_t>(p.panels() * panel));
  std::vector<float> scales(static_cast<size_t>(p.panels() * 32));
  std::vector<int32_t> offsets(scales.size());
  for (int64_t c = 0; c < p.n; ++c) {
    const float* row = p.w.data() + c * p.k;
    float max = 0;
    for (int64_t j = 0; j < p.k; ++j) max = std::max(max, std::fabs(row[j]));
    scales[static_cast<size_t>(c)] = max / 127.0f;
    for (int64_t j = 0; j < p.k; ++j) {
      const int q = static_cast<int>(std::lrint(row[j] * (127.0f / max)));
      packed[static_cast<size_t>(c / 32 * panel + (j / 4 * 32 + c % 32) * 4 + j % 4)] =
          static_cast<int8_t>(q);
      offsets[static_cast<size_t>(c)] += 128 * q;
    }
  }
  std::vector<uint8_t> bytes(static_cast<size_t>(p.m * stride));
  std::vector<float> row_scales(static_cast<size_t>(p.m));
  for (int64_t i = 0; i < p.m; ++i)
    row_scales[static_cast<size_t>(i)] =
        kernel.quantise(p.x.data() + i * p.k, p.k, bytes.data() + i * stride);
  std::vector<float> out(static_cast<size_t>(p.m * p.n), 7.0f);
  kernel.linear_int8(p.m, p.n, p.k, {bytes.data(), row_scales.data(), stride},
                     {packed.data(), panel, scales.data(), offsets.data()}, p.residual.data(),
                     out.data(), p.n);
  // Half a step of either factor for every product.
  bound.assign(out.size(), 0.0f);
  for (int64_t i = 0; i < p.m; ++i)
    for (int64_t c = 0; c < p.n; ++c) {
      const double sx = row_scales[static_cast<size_t>(i)], sw = scales[static_cast<size_t>(c)];
      double sum = 1e-5;
      for (int64_t j = 0; j < p.k; ++j)
        sum += 0.5001 * (sw * std::fabs(p.x[static_cast<size_t>(i * p.k + j)]) +
                         sx * std::fabs(p.w[static_cast<size_t>(c * p.k + j)])) +
               0.2501 * sx * sw;
      bound[static_cast<size_t>(i * p.n + c)] = static_cast<float>(sum);
    }
  return out;
}

bool same(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

void test_products() {
  const int64_t shapes[][3] = {{1, 1, 1},   {1, 130, 37}, {2, 257, 64}, {3, 128, 5},  {4, 65, 33},
                               {5, 31, 7},  {6, 200, 19}, {7, 32, 48},  {8, 33, 100}, {12, 96, 24},
                               {13, 47, 9}, {16, 160, 31}, {25, 17, 3}, {48, 129, 66}};
  uint32_t seed = 1;
  for (const auto& s : shapes) {
    const Product p(s[0], s[1], s[2], ++seed);
    std::vector<float> first[4], bound;
    for (const GenerationKernels* kernel : tables()) {
      const std::vector<float> results[4] = {run_f32(*kernel, p, false), run_f32(*kernel, p, true),
                                             run_bf16(*kernel, p), run_int8(*kernel, p, bound)};
      for (int type = 0; type < 4; ++type) {
        if (first[type].empty()) first[type] = results[type];
        CHECK(same(first[type], results[type]));
      }
    }
    for (int64_t i = 0; i < p.m; ++i)
      for (int64_t c = 0; c < p.n; ++c) {
        const size_t at = static_cast<size_t>(i * p.n + c);
        double exact = 0, with_bf16 = 0;
        for (int64_t j = 0; j < p.k; ++j) {
          const double x = p.x[static_cast<size_t>(i * p.k + j)];
          const float w = p.w[static_cast<size_t>(c * p.k + j)];
          exact += x * w;
          with_bf16 += x * widened(bf16_of(w));
        }
        const double r = p.residual[at];
        CHECK_NEAR(first[0][at], exact, 1e-5);
        CHECK_NEAR(first[1][at], exact + r, 1e-5);
        CHECK_NEAR(first[2][at], with_bf16 + r, 1e-5);
        CHECK_NEAR(first[3][at], exact + r, bound[at]);
      }
  }
}

void test_quantise() {
  for (const GenerationKernels* kernel : tables()) {
    std::vector<uint8_t> bytes(24, 1);
    std::vector<float> x(19, 0.0f);
    CHECK(kernel->quantise(x.data(), 19, bytes.data()) == 0.0f);
    for (int i = 0; i < 20; ++i) CHECK(bytes[static_cast<size_t>(i)] == 128);
    CHECK(bytes[20] == 1);
    x[18] = -2.54f;
    x[3] = 1.27f;
    CHECK_NEAR(kernel->quantise(x.data(), 19, bytes.data()), 0.02, 1e-7);
    CHECK(bytes[18] == 1 && bytes[19] == 128 && bytes[0] == 128);
    CHECK(bytes[3] == 128 + 64 || bytes[3] == 128 + 63);
    for (const float bad : {NAN, INFINITY, -INFINITY}) {
      x[7] = bad;
      CHECK(std::isnan(kernel->quantise(x.data(), 19, bytes.data())));
    }
  }
}

// One sequence's attention over pages against a plain one.
template <typename T>
void test_attention(int type, int64_t dim, int64_t n, int64_t rows) {
  Numbers numbers(static_cast<uint32_t>(dim * 1000 + n));
  const int64_t padded = (dim + 31) / 32 * 32, pages = (n + 15) / 16, offset = 48;
  std::vector<std::vector<T>> memory(static_cast<size_t>(pages));
  std::vector<const void*> table;
  std::vector<float> keys(static_cast<size_t>(n * dim)), values(keys.size());
  for (int64_t p = 0; p < pages; ++p) {
    memory[static_cast<size_t>(p)].resize(static_cast<size_t>(offset + 16 * (dim + padded)));
    table.push_back(memory[static_cast<size_t>(p)].data());
  }
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < dim; ++j) {
      T* page = memory[static_cast<size_t>(i / 16)].data() + offset;
      float k = numbers.next(), v = numbers.next();
      T& key = page[j * 16 + i % 16];
      T& value = page[16 * dim + i % 16 * padded + j];
      if constexpr (sizeof(T) == 2) {
        key = bf16_of(k);
        value = bf16_of(v);
        k = widened(key);
        v = widened(value);
      } else {
        key = k;
        value = v;
      }
      keys[static_cast<size_t>(i * dim + j)] = k;
      values[static_cast<size_t>(i * dim + j)] = v;
    }
  const std::vector<float> q = numbers.floats(rows * dim);
  const int64_t row = pages * 16;
  std::vector<float> first;
  for (const GenerationKernels* kernel : tables()) {
    std::vector<float> scores(static_cast<size_t>(rows * row)), out(static_cast<size_t>(rows * dim));
    kernel->scores[type](rows, dim, q.data(), dim, table.data(), offset, pages, scores.data(), row);
    std::vector<AttentionLane> lanes;
    for (int64_t r = 0; r < rows; ++r) {
      kernel->softmax(scores.data() + r * row, 0.3f, n, row);
      lanes.push_back({scores.data() + r * row, offset + 16 * dim, out.data() + r * dim});
    }
    kernel->weighted[type](lanes.data(), rows, table.data(), n, dim, padded);
    if (first.empty()) first = out;
    CHECK(same(first, out));
  }
  for (int64_t r = 0; r < rows; ++r) {
    std::vector<double> weight(static_cast<size_t>(n));
    double sum = 0;
    for (int64_t i = 0; i < n; ++i) {
      double score = 0;
      for (int64_t j = 0; j < dim; ++j)
        score += static_cast<double>(q[static_cast<size_t>(r * dim + j)]) *
                 static_cast<double>(keys[static_cast<size_t>(i * dim + j)]);
      sum += weight[static_cast<size_t>(i)] = std::exp(0.3 * score);
    }
    for (int64_t j = 0; j < dim; ++j) {
      double expected = 0;
      for (int64_t i = 0; i < n; ++i)
        expected += weight[static_cast<size_t>(i)] / sum *
                    static_cast<double>(values[static_cast<size_t>(i * dim + j)]);
      CHECK_NEAR(first[static_cast<size_t>(r * dim + j)], expected, 2e-6);
    }
  }
}

}  // namespace

int main() {
  CHECK(tables().size() >= 1);
  test_products();
  test_quantise();
  for (const int64_t dim : {2, 6, 32, 48, 64, 80, 128})
    for (const int64_t n : {1, 15, 16, 17, 33, 130, 150})
      for (const int64_t rows : {1, 4, 7}) {
        test_attention<float>(0, dim, n, rows);
        test_attention<uint16_t>(1, dim, n, rows);
      }
  TEST_MAIN_END("generate/kernels");
}
