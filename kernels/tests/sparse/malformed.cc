// Refusals: each rule of the formats by a hand-made violation, then thousands of seeded mutations
// of good bytes. Every accepted body must be the only spelling of its meaning.
#include <cstring>

#include "sparse/fixtures.h"
#include "sparse/reserialise.h"

using namespace covenant_test;

namespace {

constexpr cov_sparse_format kFormat{2, 64};

std::vector<uint8_t> good_body(const std::vector<cov_tensor_info>& tensors,
                               cov_sparse_format format, uint32_t seed) {
  Random random(seed);
  const auto values = random.values(total(tensors), 1);
  return compress(tensors, format, values, zeros(values.size()), zeros(values.size()), 0).body;
}

int32_t check(const std::vector<uint8_t>& body, const std::vector<cov_tensor_info>& tensors,
              cov_sparse_format format = kFormat) {
  return cov_sparse_check(body.data(), body.size(), tensors.data(),
                          static_cast<int32_t>(tensors.size()), format, nullptr)
      .code;
}

void every_rule() {
  const auto tensors = table({4096, 100});
  const auto good = good_body(tensors, kFormat, 1);
  CHECK(check(good, tensors) == COV_OK);
  const auto with = [&](size_t at, uint8_t value) {
    auto body = good;
    body[at] = value;
    return check(body, tensors);
  };
  CHECK(with(0, 'X') == COV_SPARSE_WRONG_MAGIC);
  CHECK(with(3, '2') == COV_SPARSE_WRONG_MAGIC);
  CHECK(with(4, 1) == COV_SPARSE_WRONG_MODE);
  CHECK(with(5, 2) == COV_SPARSE_WRONG_MODE);
  CHECK(with(6, 65) == COV_SPARSE_WRONG_KEEP);
  CHECK(with(8, 3) == COV_SPARSE_WRONG_TENSOR_COUNT);
  auto shorter = good;
  shorter.pop_back();
  CHECK(check(shorter, tensors) == COV_SPARSE_WRONG_SIZE);
  auto longer = good;
  longer.push_back(0);
  CHECK(check(longer, tensors) == COV_SPARSE_WRONG_SIZE);
  CHECK(check({}, tensors) == COV_SPARSE_WRONG_SIZE);
  CHECK(with(13, 0x7f) == COV_SPARSE_SCALE_OUT_OF_BOUNDS);  // top scale 32,512 or so
  CHECK(with(13, 0x80) == COV_SPARSE_SCALE_OUT_OF_BOUNDS);
  CHECK(with(15, 0) == COV_SPARSE_LEVELS_OUT_OF_ORDER);  // high = -8
  CHECK(with(16, 254) == COV_SPARSE_NOT_CANONICAL);      // no chunk at the top scale
  CHECK(with(16, 0) == COV_SPARSE_NOT_CANONICAL);        // sends nothing, but bytes follow
  // Both levels equal while values are marked high.
  auto equal = good;
  equal[14] = 8;
  equal[15] = 8;
  CHECK(check(equal, tensors) == COV_SPARSE_NOT_CANONICAL);

  // The bitmap starts after scale and 48 bytes of low bits.
  const size_t upper = 16 + 1 + 48;
  auto bitmap = good;
  std::memset(&bitmap[upper], 0, 16);
  CHECK(check(bitmap, tensors) == COV_SPARSE_BITMAP_INVALID);
  std::memset(&bitmap[upper], 0xff,
              8);  // all 64 in the first 64 values, with the low bits of others
  CHECK(check(bitmap, tensors) == COV_SPARSE_INDEX_NOT_ASCENDING);
  std::memset(&bitmap[upper], 0xff, 9);
  std::memset(&bitmap[16 + 1], 0, 48);
  CHECK(check(bitmap, tensors) == COV_SPARSE_INDEX_NOT_ASCENDING);
  std::memset(&bitmap[upper], 0, 16);
  std::memset(&bitmap[upper + 8], 0xff, 8);  // positions 64 to 127: index 64·64 and up
  CHECK(check(bitmap, tensors) == COV_SPARSE_INDEX_OUT_OF_RANGE);
}

// 100 values keep one: 6 low bits, 1 + 2 upper bits, 2 value bits, so every field has padding.
void trailing_bits() {
  const auto tensors = table({100});
  const auto good = good_body(tensors, kFormat, 2);
  CHECK(good.size() == 12 + 4 + 4);
  CHECK(check(good, tensors) == COV_OK);
  for (const auto& [byte, bit] : {std::pair{17, 6}, {17, 7}, {18, 3}, {18, 7}, {19, 2}, {19, 7}}) {
    auto body = good;
    body[static_cast<size_t>(byte)] |= static_cast<uint8_t>(1 << bit);
    CHECK(check(body, tensors) == COV_SPARSE_TRAILING_BITS);
  }
}

void empty_tensors_are_canonical() {
  const auto tensors = table({64});
  const auto body = compress(tensors, kFormat, zeros(64), zeros(64), zeros(64)).body;
  CHECK(check(body, tensors) == COV_OK);
  for (size_t at = 12; at < body.size(); ++at) {
    auto changed = body;
    changed[at] = 1;
    CHECK(check(changed, tensors) != COV_OK);
  }
}

void mutations_of_bodies() {
  const auto tensors = table({4096 + 200, 100, 0, 64});
  Random random(17);
  int accepted = 0;
  for (const cov_sparse_format format :
       {kFormat, cov_sparse_format{1, 64}, cov_sparse_format{2, 500}}) {
    const auto good = good_body(tensors, format, 3);
    for (int round = 0; round < 4000; ++round) {
      auto body = good;
      const uint32_t changes = 1 + random.below(4);
      for (uint32_t c = 0; c < changes; ++c) {
        const auto at = random.below(static_cast<uint32_t>(body.size()));
        if (random.below(2) == 0)
          body[at] ^= static_cast<uint8_t>(1u << random.below(8));
        else
          body[at] = static_cast<uint8_t>(random.below(256));
      }
      if (random.below(20) == 0) body.resize(random.below(static_cast<uint32_t>(body.size() + 1)));
      if (check(body, tensors, format) != COV_OK) continue;
      ++accepted;
      const auto sent = decode(body, tensors, format);
      CHECK_OK(sent.status);
      for (size_t j = 0; j < sent.indices.size(); ++j) {
        CHECK(std::isfinite(sent.values[j]) && sent.values[j] != 0);
        CHECK(sent.indices[j] < total(tensors));
        CHECK(j == 0 || sent.indices[j] > sent.indices[j - 1]);
      }
      CHECK(reserialise(body, tensors, format) == body);
    }
  }
  // Most bits of values and levels may take any value, so the test sees accepted bodies as well.
  CHECK(accepted > 100);
}

void mutations_of_merged_updates() {
  const auto tensors = table({4096, 100, 7});
  Random random(23);
  std::vector<std::vector<uint8_t>> bodies{good_body(tensors, kFormat, 4),
                                           good_body(tensors, kFormat, 5)};
  const uint8_t* pointers[] = {bodies[0].data(), bodies[1].data()};
  const uint64_t sizes[] = {bodies[0].size(), bodies[1].size()};
  const float weights[] = {1, 1};
  const cov_merge_input input{pointers, sizes, weights, 2, COV_MERGE_ALL, 0};
  cov_bytes merged{};
  CHECK_OK(cov_sparse_merge(&input, tensors.data(), 3, kFormat, 1, &merged));
  const std::vector<uint8_t> good(merged.data, merged.data + merged.length);
  cov_bytes_free(&merged);
  const auto verdict = [&](const std::vector<uint8_t>& bytes) {
    std::vector<float> parameters(total(tensors));
    int32_t skipped[3];
    int32_t count = 0;
    return cov_merged_apply(parameters.data(), parameters.size(), bytes.data(), bytes.size(),
                            tensors.data(), 3, 1.0f, skipped, &count)
        .code;
  };
  CHECK(verdict(good) == COV_OK);
  for (size_t length = 0; length < good.size(); ++length) {
    CHECK(verdict({good.begin(), good.begin() + static_cast<std::ptrdiff_t>(length)}) ==
          COV_SPARSE_WRONG_SIZE);
  }
  auto longer = good;
  longer.push_back(0);
  CHECK(verdict(longer) == COV_SPARSE_WRONG_SIZE);
  int refused = 0;
  for (int round = 0; round < 8000; ++round) {
    auto bytes = good;
    for (uint32_t c = 0; c <= random.below(3); ++c) {
      bytes[random.below(static_cast<uint32_t>(bytes.size()))] =
          static_cast<uint8_t>(random.below(256));
    }
    refused += verdict(bytes) != COV_OK;
  }
  CHECK(refused > 1000);
}

}  // namespace

int main() {
  every_rule();
  trailing_bits();
  empty_tensors_are_canonical();
  mutations_of_bodies();
  mutations_of_merged_updates();
  TEST_MAIN_END("sparse/malformed");
}
