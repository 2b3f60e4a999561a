// Compress, check and decode: what is kept, what stays behind, and which shapes and values are
// handled.
#include <algorithm>
#include <limits>
#include <numeric>

#include "sparse/fixtures.h"
#include "sparse/layout.h"

using namespace covenant_test;

namespace {

constexpr cov_sparse_format kTwoBit{2, 64};
constexpr cov_sparse_format kOneBit{1, 64};

// The rule of the format by its words: sort everything by magnitude, then index.
std::vector<uint32_t> expected_indices(const std::vector<float>& a, uint64_t first, int32_t n,
                                       int32_t keep) {
  std::vector<uint32_t> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), static_cast<uint32_t>(first));
  std::stable_sort(order.begin(), order.end(),
                   [&](uint32_t x, uint32_t y) { return std::fabs(a[x]) > std::fabs(a[y]); });
  order.resize(static_cast<size_t>(std::max(1, n * keep / 4096)));
  std::sort(order.begin(), order.end());
  return order;
}

void round_trip(std::initializer_list<uint64_t> lengths, cov_sparse_format format, uint32_t seed) {
  const auto tensors = table(lengths);
  Random random(seed);
  const size_t count = total(tensors);
  const auto base = random.values(count, 1);
  auto current = base;
  for (float& value : current) value -= static_cast<float>(random.laplace() * 1e-3);
  const auto feedback = random.values(count, 5e-4);
  const auto packed = compress(tensors, format, base, current, feedback);
  CHECK_OK(packed.status);
  const auto sent = decode(packed.body, tensors, format);
  CHECK_OK(sent.status);

  std::vector<float> a(count);
  for (size_t i = 0; i < count; ++i) a[i] = std::fma(0.95f, feedback[i], base[i] - current[i]);
  std::vector<uint32_t> expected;
  for (const auto& tensor : tensors) {
    for (uint64_t at = 0; at < tensor.length; at += 4096) {
      const auto n = static_cast<int32_t>(std::min<uint64_t>(4096, tensor.length - at));
      const auto own = expected_indices(a, tensor.offset + at, n, format.keep_per_chunk);
      expected.insert(expected.end(), own.begin(), own.end());
    }
  }
  CHECK(sent.indices == expected);

  // What is not sent stays in the error feedback, to the last bit.
  std::vector<float> rest = a;
  for (size_t j = 0; j < sent.indices.size(); ++j) {
    CHECK(std::signbit(sent.values[j]) == std::signbit(a[sent.indices[j]]));
    rest[sent.indices[j]] = a[sent.indices[j]] - sent.values[j];
  }
  CHECK_SAME(rest.data(), packed.error_feedback.data(), count * sizeof(float));
}

void shapes() {
  for (const auto format : {kTwoBit, kOneBit}) {
    round_trip({4096}, format, 1);
    round_trip({1}, format, 2);
    round_trip({128, 4096 * 3, 127, 8191, 10007, 64, 65, 63}, format, 3);
    round_trip({5000, 0, 7, 0}, format, 4);
  }
  round_trip({4096, 100}, {2, 4096}, 5);
  round_trip({4096, 3}, {2, 1}, 6);
  round_trip({9000, 33}, {1, 1000}, 7);

  // No tensors at all, and only empty ones.
  const auto none = compress({}, kTwoBit, {}, {}, {});
  CHECK_OK(none.status);
  CHECK(none.body.size() == 12);
  const auto empty = table({0, 0});
  const auto packed = compress(empty, kTwoBit, {}, {}, {});
  CHECK_OK(packed.status);
  CHECK_OK(decode(packed.body, empty, kTwoBit).status);
}

void ties_go_to_the_lowest_index() {
  const auto tensors = table({4096});
  auto base = zeros(4096);
  for (size_t i = 0; i < 4096; ++i) base[i] = i % 2 ? 1.0f : -1.0f;
  base[4000] = 2.0f;
  const auto sent =
      decode(compress(tensors, kTwoBit, base, zeros(4096), zeros(4096)).body, tensors, kTwoBit);
  CHECK(sent.indices.size() == 64);
  for (uint32_t j = 0; j < 63; ++j) CHECK(sent.indices[j] == j);
  CHECK(sent.indices[63] == 4000);
}

void zeros_send_nothing() {
  const auto tensors = table({4096, 4096, 100});
  auto base = zeros(total(tensors));
  base[4096 + 17] = 3.0f;
  const auto packed = compress(tensors, kTwoBit, base, zeros(base.size()), zeros(base.size()));
  CHECK_OK(packed.status);
  const auto sent = decode(packed.body, tensors, kTwoBit);
  CHECK_OK(sent.status);
  CHECK(sent.indices.size() == 64);
  CHECK(sent.indices.front() == 4096);
  // A chunk far below the largest of its tensor waits in the error feedback instead of being blown
  // up.
  const auto wide = table({8192});
  auto values = zeros(8192);
  values[0] = 1.0f;
  values[5000] = 1e-9f;
  const auto both = compress(wide, kTwoBit, values, zeros(8192), zeros(8192));
  const auto large = decode(both.body, wide, kTwoBit);
  CHECK(large.indices.size() == 64);
  CHECK(both.error_feedback[5000] == 1e-9f);
}

// The levels come from every s-th chunk, s = chunks / 32: a tensor of those chunks alone has them.
void levels_come_from_the_sample() {
  Random random(21);
  for (const size_t chunks : {63u, 64u, 200u}) {
    const auto tensors = table({4096 * chunks - 5});
    auto base = random.values(total(tensors), 1);
    for (size_t i = 0; i < base.size(); ++i) base[i] *= static_cast<float>(1 + i / 40960);
    const size_t stride = std::max<size_t>(1, chunks / 32);
    std::vector<float> sample;
    for (size_t chunk = 0; chunk < chunks; chunk += stride) {
      const size_t end = std::min(base.size(), (chunk + 1) * 4096);
      for (size_t i = chunk * 4096; i < end; ++i) sample.push_back(base[i]);
    }
    const auto own = table({sample.size()});
    const auto whole = compress(tensors, kTwoBit, base, zeros(base.size()), zeros(base.size()));
    const auto part = compress(own, kTwoBit, sample, zeros(sample.size()), zeros(sample.size()));
    CHECK(stride > 1 || whole.body == part.body);
    CHECK_SAME(&whole.body[14], &part.body[14], 2);
    CHECK_OK(decode(whole.body, tensors, kTwoBit).status);
  }
}

// A chunk that is not in the sample sets the top scale, and all others fall below what is sent.
void a_late_outlier_silences_the_rest() {
  const auto tensors = table({4096 * 100 + 3});
  Random random(22);
  auto base = random.values(total(tensors), 1e-9);
  for (size_t i = 0; i < 4096; ++i) base[52 * 4096 + i] *= 1e16f;
  for (const auto format : {kTwoBit, kOneBit}) {
    for (const int32_t threads : {1, 3}) {
      const auto packed = compress(tensors, format, base, zeros(base.size()),
                                   zeros(base.size()), 0, threads);
      CHECK_OK(packed.status);
      const auto sent = decode(packed.body, tensors, format);
      CHECK(sent.indices.size() == 64);
      CHECK(sent.indices.front() >= 52 * 4096 && sent.indices.back() < 53 * 4096);
      CHECK_SAME(packed.error_feedback.data(), base.data(), 52 * 4096 * sizeof(float));
      CHECK_SAME(&packed.error_feedback[53 * 4096], &base[53 * 4096], 47 * 4096 * sizeof(float));
    }
  }
  // The sample has nothing to say: one level for all.
  auto alone = zeros(base.size());
  alone[52 * 4096 + 7] = 3.0f;
  const auto packed = compress(tensors, kTwoBit, alone, zeros(base.size()), zeros(base.size()), 0);
  CHECK_OK(decode(packed.body, tensors, kTwoBit).status);
  CHECK(packed.body[14] == 8 && packed.body[15] == 8);
}

void refuses_what_is_not_finite() {
  const auto tensors = table({5000, 5000});
  const float bad[] = {NAN, INFINITY, -INFINITY};
  for (const float value : bad) {
    for (int which = 0; which < 3; ++which) {
      std::vector<float> buffers[3] = {zeros(10000), zeros(10000), zeros(10000)};
      buffers[which][7000] = value;
      const auto packed = compress(tensors, kTwoBit, buffers[0], buffers[1], buffers[2]);
      CHECK_CODE(packed.status, COV_SPARSE_NON_FINITE);
      CHECK(std::string(packed.status.message).find("tensor.1") != std::string::npos);
    }
  }
  auto base = zeros(10000);
  base[3] = 3e38f;
  CHECK_CODE(compress(tensors, kTwoBit, base, zeros(10000), zeros(10000)).status,
             COV_SPARSE_MAGNITUDE_TOO_LARGE);
  // Subnormal values are data like any other: they stay behind.
  base[3] = 1e-42f;
  const auto packed = compress(tensors, kTwoBit, base, zeros(10000), zeros(10000));
  CHECK_OK(packed.status);
  CHECK(decode(packed.body, tensors, kTwoBit).indices.empty());
  CHECK(packed.error_feedback[3] == 1e-42f);
}

void same_bits_for_any_threads() {
  const auto tensors = table({4096 * 40 + 123, 999, 4096 * 17});
  Random random(11);
  const size_t count = total(tensors);
  const auto base = random.values(count, 1);
  const auto current = random.values(count, 1);
  const auto feedback = random.values(count, 1);
  const auto one = compress(tensors, kTwoBit, base, current, feedback, 0.95f, 1);
  for (const int32_t threads : {2, 3, 7}) {
    const auto many = compress(tensors, kTwoBit, base, current, feedback, 0.95f, threads);
    CHECK(many.body == one.body);
    CHECK_SAME(many.error_feedback.data(), one.error_feedback.data(), count * sizeof(float));
  }
}

// Rows of the table of a LLaMA: 16 + 4·49 full chunks and nine norms of 128.
void wire_sizes() {
  std::vector<cov_tensor_info> show = table(
      {65536, 16384, 16384, 16384, 16384, 45056, 45056, 45056, 128,   128,   16384, 16384, 16384,
       16384, 45056, 45056, 45056, 128,   128,   16384, 16384, 16384, 16384, 45056, 45056, 45056,
       128,   128,   16384, 16384, 16384, 16384, 45056, 45056, 45056, 128,   128,   128});
  uint64_t bytes = 0;
  CHECK_OK(
      cov_sparse_size(show.data(), static_cast<int32_t>(show.size()), kTwoBit, &bytes, nullptr));
  CHECK(static_cast<double>(total(show) * 4) / static_cast<double>(bytes + 350) >= 185);
  const auto large = table({10'000'000 - 128 * 20, 128 * 20});
  CHECK_OK(cov_sparse_size(large.data(), 2, kTwoBit, &bytes, nullptr));
  CHECK(40e6 / static_cast<double>(bytes + 350 + 100 * 4) >= 200);
  const auto chunk = table({4096});
  CHECK_OK(cov_sparse_size(chunk.data(), 1, kTwoBit, &bytes, nullptr));
  CHECK(bytes == 12 + 4 + 81);
  CHECK_OK(cov_sparse_size(chunk.data(), 1, kOneBit, &bytes, nullptr));
  CHECK(bytes == 12 + 2 + 73);
}

void refuses_bad_arguments() {
  const auto tensors = table({4096});
  const auto value = zeros(4096);
  uint64_t bytes = 0;
  CHECK_CODE(cov_sparse_size(tensors.data(), 1, {3, 64}, &bytes, nullptr), COV_INVALID_ARGUMENT);
  CHECK_CODE(cov_sparse_size(tensors.data(), 1, {2, 0}, &bytes, nullptr), COV_INVALID_ARGUMENT);
  CHECK_CODE(cov_sparse_size(tensors.data(), 1, {2, 4097}, &bytes, nullptr), COV_INVALID_ARGUMENT);
  CHECK_CODE(cov_sparse_size(nullptr, 1, kTwoBit, &bytes, nullptr), COV_INVALID_ARGUMENT);
  auto overlapping = table({4096, 4096});
  overlapping[1].offset = 4095;
  CHECK_CODE(cov_sparse_size(overlapping.data(), 2, kTwoBit, &bytes, nullptr),
             COV_INVALID_ARGUMENT);
  auto huge = table({4096});
  huge[0].offset = UINT64_MAX - 5;
  CHECK_CODE(cov_sparse_size(huge.data(), 1, kTwoBit, &bytes, nullptr), COV_INVALID_ARGUMENT);
  CHECK_CODE(compress(tensors, kTwoBit, value, value, value, 1.5f).status, COV_INVALID_ARGUMENT);
  CHECK_CODE(compress(tensors, kTwoBit, value, value, value, NAN).status, COV_INVALID_ARGUMENT);
  const auto shorter = zeros(4000);
  CHECK_CODE(compress(tensors, kTwoBit, shorter, shorter, shorter).status, COV_INVALID_ARGUMENT);
}

}  // namespace

int main() {
  shapes();
  ties_go_to_the_lowest_index();
  zeros_send_nothing();
  levels_come_from_the_sample();
  a_late_outlier_silences_the_rest();
  refuses_what_is_not_finite();
  same_bits_for_any_threads();
  wire_sizes();
  refuses_bad_arguments();
  TEST_MAIN_END("sparse/round_trip");
}
