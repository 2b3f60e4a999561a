// Every CPU path gives the bits of the portable one: selection alone against a sort, and whole
// compressions, on values with ties, zeros, denormals, huge spreads and values that are not finite.
#include <algorithm>
#include <bit>
#include <numeric>

#include "covenant/model.h"
#include "sparse/fixtures.h"
#include "sparse/gather.h"

using namespace covenant_test;
using covenant::sparse::GatherFunction;

namespace {

struct Path {
  const char* name;
  GatherFunction gather;
};

std::vector<Path> paths() {
  std::vector<Path> out = {{"portable", covenant::sparse::gather_portable}};
#if defined(__x86_64__)
  if (cov_set_cpu_path("avx2").code == COV_OK)
    out.push_back({"avx2", covenant::sparse::gather_avx2});
  if (cov_set_cpu_path("avx512").code == COV_OK)
    out.push_back({"avx512", covenant::sparse::gather_avx512});
  CHECK_OK(cov_set_cpu_path(nullptr));
#endif
  return out;
}

// Values of many kinds; `kind` picks the mixture.
float draw(Random& random, uint32_t kind) {
  const float sign = random.below(2) ? 1.0f : -1.0f;
  switch (kind) {
    case 0:
      return static_cast<float>(random.laplace());
    case 1:  // many ties
      return sign * static_cast<float>(random.below(4));
    case 2:  // mostly zeros of both signs
      return random.below(50) == 0 ? static_cast<float>(random.gaussian()) : sign * 0.0f;
    case 3:  // denormals
      return sign * std::bit_cast<float>(random.below(1u << 20));
    case 4:  // any exponent below 2^100
      return sign * std::bit_cast<float>(random.below(226u << 23));
    case 5:  // all equal
      return 0.25f;
    case 6:  // neighbouring bit patterns
      return sign * std::bit_cast<float>(0x3f800000u + random.below(3));
    default:
      return 0.0f;
  }
}

void selection() {
  Random random(3);
  for (int round = 0; round < unless_sanitized(400, 80); ++round) {
    const uint32_t kind = static_cast<uint32_t>(round) % 8;
    const auto n =
        static_cast<int32_t>(round % 2 == 0 ? 1 + random.below(4096) : 4096 - random.below(3));
    const auto kept = static_cast<int32_t>(1 + random.below(random.below(4) ? 80 : 4096));
    const auto size = static_cast<size_t>(n);
    std::vector<float> base(size), current(size, 0.0f), feedback(size);
    for (float& value : base) value = draw(random, kind);
    for (float& value : feedback) value = draw(random, kind) * 0.001f;
    std::vector<float> a(size);
    for (size_t i = 0; i < size; ++i) a[i] = std::fma(0.9f, feedback[i], base[i] - current[i]);
    std::vector<uint16_t> expected(size);
    std::iota(expected.begin(), expected.end(), uint16_t{0});
    std::stable_sort(expected.begin(), expected.end(), [&](uint16_t x, uint16_t y) {
      return std::fabs(a[x]) > std::fabs(a[y]);
    });
    expected.resize(static_cast<size_t>(std::min(n, kept)));
    std::sort(expected.begin(), expected.end());
    for (const Path& path : paths()) {
      // A hint that is far too low, right, far too high, or nothing.
      for (const uint32_t first_hint : {0u, 0x3f000000u, 0x7f000000u, 1u}) {
        auto e = feedback;
        uint32_t hint = first_hint;
        std::vector<uint16_t> indices(size + covenant::sparse::kGatherIndexPadding);
        const uint32_t largest = path.gather(base.data(), current.data(), 0.9f, e.data(), n,
                                             std::min(n, kept), &hint, indices.data());
        CHECK_SAME(e.data(), a.data(), size * sizeof(float));
        const float most = std::fabs(*std::max_element(
            a.begin(), a.end(), [](float x, float y) { return std::fabs(x) < std::fabs(y); }));
        CHECK(largest == std::bit_cast<uint32_t>(most));
        CHECK(std::equal(expected.begin(), expected.end(), indices.begin()));
      }
    }
  }
}

void not_finite() {
  for (const Path& path : paths()) {
    for (const size_t where : {0u, 15u, 16u, 999u, 1000u}) {
      for (const float bad : {NAN, -NAN, INFINITY, -INFINITY}) {
        auto base = zeros(1001);
        auto e = zeros(1001);
        base[where] = bad;
        uint32_t hint = 0;
        uint16_t indices[1001 + covenant::sparse::kGatherIndexPadding];
        CHECK(path.gather(base.data(), zeros(1001).data(), 0.5f, e.data(), 1001, 9, &hint,
                          indices) >= 0x7f800000);
      }
    }
  }
}

void whole_compressions() {
  const auto tensors = table({4096 * 70 + 123, 999, 0, 4096 * 17, 1, 64, 10007});
  const size_t count = total(tensors);
  Random random(11);
  for (uint32_t kind = 0; kind < 8; ++kind) {
    std::vector<float> base(count), current(count), feedback(count);
    for (float& value : base) value = draw(random, kind);
    for (float& value : current) value = draw(random, kind);
    for (float& value : feedback) value = draw(random, kind);
    for (const cov_sparse_format format :
         {cov_sparse_format{2, 64}, cov_sparse_format{1, 64}, cov_sparse_format{2, 1500}}) {
      CHECK_OK(cov_set_cpu_path("portable"));
      const auto expected = compress(tensors, format, base, current, feedback);
      for (const Path& path : paths()) {
        CHECK_OK(cov_set_cpu_path(path.name));
        for (const int32_t threads : {1, 2, 5, 0}) {
          const auto own = compress(tensors, format, base, current, feedback, 0.95f, threads);
          CHECK(own.status.code == expected.status.code);
          CHECK(std::string(own.status.message) == expected.status.message);
          if (own.status.code != COV_OK) continue;
          CHECK(own.body == expected.body);
          CHECK_SAME(own.error_feedback.data(), expected.error_feedback.data(),
                     count * sizeof(float));
        }
      }
      CHECK_OK(cov_set_cpu_path(nullptr));
    }
  }
}

}  // namespace

int main() {
  selection();
  not_finite();
  whole_compressions();
  TEST_MAIN_END("sparse/paths");
}
