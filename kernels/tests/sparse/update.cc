// Merging and applying in one gives the bits of merging, then applying: every rule, path, mode and
// thread count, odd shapes, and what must be refused or skipped. The fast reader of chunks accepts
// exactly what the slow one accepts.
#include <cstring>

#include "covenant/model.h"
#include "sparse/decode.h"
#include "sparse/fixtures.h"

using namespace covenant_test;

namespace {

struct Inputs {
  std::vector<std::vector<uint8_t>> bodies;
  std::vector<const uint8_t*> pointers;
  std::vector<uint64_t> sizes;
  std::vector<float> weights;
  cov_merge_input input(int32_t rule, bool clip) const {
    return {pointers.data(), sizes.data(), weights.data(), static_cast<int32_t>(bodies.size()),
            rule, clip ? 1 : 0};
  }
};

Inputs inputs(const std::vector<cov_tensor_info>& tensors, cov_sparse_format format, int peers,
              double scale) {
  Inputs out;
  for (int r = 0; r < peers; ++r) {
    Random random(100 + static_cast<uint32_t>(r));
    auto values = random.values(total(tensors), scale * (r % 4 + 1));
    // One peer sends nothing in some chunks, another nothing of a tensor.
    if (r == 1) std::fill_n(values.begin(), std::min<size_t>(4096, values.size()), 0.0f);
    if (r == 2) std::fill(values.end() - 1, values.end(), 0.0f);
    const auto packed =
        compress(tensors, format, values, zeros(values.size()), zeros(values.size()), 0);
    CHECK_OK(packed.status);
    out.bodies.push_back(packed.body);
    out.weights.push_back(r == 3 ? 0.0f : r == 4 ? 0.375f : 1.0f);
  }
  for (const auto& body : out.bodies) {
    out.pointers.push_back(body.data());
    out.sizes.push_back(body.size());
  }
  return out;
}

// Updates `start` in one call on every path and number of threads, against merging, then applying,
// on the portable path.
void same_bits(const std::vector<cov_tensor_info>& tensors, cov_sparse_format format,
               const cov_merge_input& input, float rate, const std::vector<float>& start) {
  const auto count = static_cast<int32_t>(tensors.size());
  CHECK_OK(cov_set_cpu_path("portable"));
  cov_bytes merged{};
  CHECK_OK(cov_sparse_merge(&input, tensors.data(), count, format, 1, &merged));
  auto expected = start;
  std::vector<int32_t> skipped(tensors.size());
  int32_t skipped_count = 0;
  CHECK_OK(cov_merged_apply(expected.data(), expected.size(), merged.data, merged.length,
                            tensors.data(), count, rate, skipped.data(), &skipped_count));
  for (const char* path : {"portable", "avx2", "avx512"}) {
    if (cov_set_cpu_path(path).code != COV_OK) continue;
    cov_bytes own{};
    CHECK_OK(cov_sparse_merge(&input, tensors.data(), count, format, 2, &own));
    CHECK(own.length == merged.length);
    if (own.length == merged.length) CHECK_SAME(own.data, merged.data, own.length);
    cov_bytes_free(&own);
    for (const int32_t threads : {1, 2, 3, 0}) {
      auto actual = start;
      int32_t own_count = -1;
      CHECK_OK(cov_sparse_update(actual.data(), actual.size(), &input, tensors.data(), count,
                                 format, rate, threads, skipped.data(), &own_count));
      CHECK(own_count == skipped_count);
      CHECK_SAME(actual.data(), expected.data(), actual.size() * sizeof(float));
    }
  }
  CHECK_OK(cov_set_cpu_path(nullptr));
  cov_bytes_free(&merged);
}

void same_as_merge_then_apply() {
  const auto tensors = table({4096 * 3 + 100, 64, 0, 9000, 1, 4096});
  Random random(9);
  const auto start = random.values(total(tensors), 1);
  for (const cov_sparse_format format :
       {cov_sparse_format{2, 64}, cov_sparse_format{1, 64}, cov_sparse_format{2, 300}}) {
    for (const double scale : {0.01, 1e28}) {
      const Inputs peers = inputs(tensors, format, 7, scale);
      for (const int32_t rule : {COV_MERGE_CONTRIBUTORS, COV_MERGE_ALL}) {
        for (const bool clip : {false, true})
          same_bits(tensors, format, peers.input(rule, clip), 0.7f, start);
      }
    }
  }
}

// Equal weights have divisors that are looked up by how many sent a value: sums of weights that
// fp32 cannot hold, subnormal sums and means, values that all peers send, more peers than the
// table has divisors, and parameters whose sign of zero must stay.
void divisors_by_count() {
  const auto tensors = table({4096 * 5 + 77, 4096});
  Random random(10);
  auto start = random.values(total(tensors), 1);
  for (size_t i = 0; i < start.size(); i += 3) start[i] = i % 2 == 0 ? 0.0f : -0.0f;
  for (const int peers : {1, 2, 20, 31, 32, 40}) {
    for (const double scale : {0.01, 1e-28}) {
      Inputs own = inputs(tensors, {2, 64}, peers, scale);
      // Half of the peers agree, so that counts come up to that, and all of the first two.
      for (int r = 2; r < peers; r += 2) own.pointers[static_cast<size_t>(r)] = own.pointers[0];
      for (const float weight : {1.0f, 0.1f, 1.0f / 3, 1e-12f}) {
        std::fill(own.weights.begin(), own.weights.end(), weight);
        for (const int32_t rule : {COV_MERGE_CONTRIBUTORS, COV_MERGE_ALL}) {
          for (const float rate : {0.7f, -0.3f})
            same_bits(tensors, {2, 64}, own.input(rule, peers % 2 == 0), rate, start);
        }
      }
    }
  }
}

// Where most peers send nothing the median norm is 0, and so is the factor of the others.
void factor_of_zero() {
  const auto tensors = table({4096 * 2 + 5, 4096});
  Inputs peers = inputs(tensors, {2, 64}, 5, 0.01);
  const auto nothing = zeros(total(tensors));
  const auto packed = compress(tensors, {2, 64}, nothing, nothing, nothing, 0);
  CHECK_OK(packed.status);
  for (const size_t r : {0u, 2u, 3u}) peers.pointers[r] = packed.body.data();
  std::fill(peers.weights.begin(), peers.weights.end(), 1.0f);
  Random random(11);
  auto start = random.values(total(tensors), 1);
  start[5] = -0.0f;
  same_bits(tensors, {2, 64}, peers.input(COV_MERGE_CONTRIBUTORS, true), 1.0f, start);
}

// Weights that make a sum overflow: the tensor is skipped, as when applying a merged update.
void skips_what_overflows() {
  const auto tensors = table({4096, 4096});
  const cov_sparse_format format{2, 64};
  Inputs peers = inputs(tensors, format, 3, 1e27);
  peers.weights = {3e38f, 1.0f, 1.0f};
  const cov_merge_input input = peers.input(COV_MERGE_CONTRIBUTORS, false);
  Random random(4);
  const auto start = random.values(8192, 1);
  auto parameters = start;
  int32_t skipped[2] = {-1, -1}, count = 0;
  CHECK_OK(cov_sparse_update(parameters.data(), parameters.size(), &input, tensors.data(), 2,
                             format, 1.0f, 1, skipped, &count));
  CHECK(count == 2 && skipped[0] == 0 && skipped[1] == 1);
  CHECK(parameters == start);
}

void refuses_before_it_changes_anything() {
  const auto tensors = table({9000, 100});
  const cov_sparse_format format{2, 64};
  Inputs peers = inputs(tensors, format, 5, 0.01);
  peers.bodies[4][20] ^= 0xff;
  peers.bodies[2][0] = 'X';
  const cov_merge_input input = peers.input(COV_MERGE_ALL, true);
  auto parameters = zeros(9100);
  int32_t skipped[2], count = 0;
  for (const int32_t threads : {1, 4}) {
    const cov_status status =
        cov_sparse_update(parameters.data(), parameters.size(), &input, tensors.data(), 2, format,
                          1.0f, threads, skipped, &count);
    CHECK(status.code == COV_SPARSE_WRONG_MAGIC);
    CHECK(std::strstr(status.message, "update 2:") != nullptr);
  }
  CHECK(parameters == zeros(9100));
  const auto call = [&](float rate, uint64_t length, const cov_merge_input& own) {
    return cov_sparse_update(parameters.data(), length, &own, tensors.data(), 2, format, rate, 1,
                             skipped, &count);
  };
  CHECK_CODE(call(NAN, 9100, input), COV_INVALID_ARGUMENT);
  CHECK_CODE(call(1.0f, 9099, input), COV_INVALID_ARGUMENT);
  cov_merge_input none = input;
  none.count = 0;
  CHECK_CODE(call(1.0f, 9100, none), COV_INVALID_ARGUMENT);
}

void readers_agree() {
  using namespace covenant::sparse;
  std::vector<DecodeFunction> readers;
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2"))
    readers.push_back(decode64_avx2);
  if (__builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vbmi2"))
    readers.push_back(decode64_avx512vbmi);
#endif
  const auto tensors = table({4096});
  Random random(31);
  int accepted = 0;
  const int rounds = unless_sanitized(20000, 4000);
  for (int round = 0; round < rounds; ++round) {
    uint8_t fields[64 + 16];
    if (round % 50 == 0) {
      const auto values = random.values(4096, 1);
      const auto packed =
          compress(tensors, {2, 64}, values, zeros(values.size()), zeros(values.size()), 0);
      std::memcpy(fields, packed.body.data() + 17, sizeof fields);
    }
    auto changed = std::vector<uint8_t>(fields, fields + sizeof fields);
    for (uint32_t c = random.below(4); c > 0; --c)
      changed[random.below(64)] ^= static_cast<uint8_t>(1u << random.below(8));
    uint16_t expected[64];
    const bool good = decode64_portable(changed.data(), expected);
    accepted += good;
    for (const DecodeFunction reader : readers) {
      uint16_t actual[64];
      CHECK(reader(changed.data(), actual) == good);
      if (good) CHECK_SAME(actual, expected, sizeof expected);
    }
  }
  CHECK(accepted > rounds / 20 && accepted < rounds / 20 * 19);
}

}  // namespace

int main() {
  same_as_merge_then_apply();
  divisors_by_count();
  factor_of_zero();
  skips_what_overflows();
  refuses_before_it_changes_anything();
  readers_agree();
  TEST_MAIN_END("sparse/update");
}
