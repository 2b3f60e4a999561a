// The same of policy deltas, activations, projections and the updates of others: see engine.cc.
#include "failing.h"

#include <vector>

#include "../engine/support.h"
#include "../sparse/fixtures.h"
#include "covenant/activation.h"
#include "covenant/delta.h"

using namespace covenant_test;

namespace {

constexpr int32_t kWidth = 37, kRank = 9, kRows = 21, kVocab = 5;

void test_delta(int threads) {
  std::vector<uint16_t> base(5000), next, out(base.size());
  Numbers numbers(3);
  for (uint16_t& weight : base) weight = static_cast<uint16_t>(numbers.word());
  next = base;
  for (size_t i = 0; i < next.size(); i += 9) ++next[i];
  const uint64_t count = base.size();
  cov_bytes delta = {};
  run({"encode delta", [&] { cov_bytes_free(&delta); },
       [&] { return cov_delta_encode(base.data(), next.data(), count, threads, &delta); },
       [&] { return delta.data == nullptr; }, [&] { return delta.length > COV_DELTA_HEADER_BYTES; }});
  run({"apply delta", [&] { out.assign(count, 0); },
       [&] {
         return cov_delta_apply(base.data(), count, delta.data, delta.length, threads, out.data());
       },
       [] { return true; }, [&] { return out == next; }});
  uint8_t root[COV_HASH_BYTES];
  cov_delta_info info = {};
  CHECK_OK(cov_delta_read(delta.data, delta.length, &info));
  run({"root of weights", [&] { std::memset(root, 0, sizeof root); },
       [&] { return cov_delta_root(base.data(), count, threads, root); }, [] { return true; },
       [&] { return std::memcmp(root, info.base_root, sizeof root) == 0; }});
  cov_bytes_free(&delta);
}

void test_activations(int threads) {
  Numbers numbers(4);
  const std::vector<float> values = numbers.floats(kRows * kWidth);
  for (const int32_t kind : {COV_ACTIVATION_BF16, COV_ACTIVATION_INT8, COV_ACTIVATION_INT4}) {
    uint64_t bytes = 0;
    CHECK_OK(cov_activation_size(kind, kRows, kWidth, &bytes));
    std::vector<uint8_t> payload(bytes), sound(bytes);
    std::vector<float> out(values.size()), decoded(values.size());
    CHECK_OK(cov_activation_encode(kind, values.data(), kRows, kWidth, 1, sound.data(), bytes));
    CHECK_OK(cov_activation_decode(kind, sound.data(), bytes, kRows, kWidth, 1, decoded.data()));
    const auto encode = [&] {
      return cov_activation_encode(kind, values.data(), kRows, kWidth, threads, payload.data(),
                                   bytes);
    };
    const auto decode = [&] {
      return cov_activation_decode(kind, sound.data(), bytes, kRows, kWidth, threads, out.data());
    };
    // One thread on small rows needs no memory at all; whatever it asks for may be refused.
    run_if_it_allocates({"encode activations", [&] { payload.assign(bytes, 0); }, encode,
                         [] { return true; }, [&] { return payload == sound; }});
    run_if_it_allocates({"decode activations", [&] { out.assign(out.size(), 0); }, decode,
                         [] { return true; }, [&] { return out == decoded; }});
  }
}

void test_projections(int threads) {
  Numbers numbers(5);
  std::vector<float> basis(kWidth * kRank), expected_basis(basis.size());
  CHECK_OK(cov_projection_random_basis(3, kWidth, kRank, expected_basis.data()));
  run({"random basis", [&] { basis.assign(basis.size(), 0); },
       [&] { return cov_projection_random_basis(3, kWidth, kRank, basis.data()); },
       [] { return true; }, [&] { return basis == expected_basis; }});
  const std::vector<float> table = numbers.floats(kVocab * kWidth);
  const std::vector<float> x = numbers.floats(kRows * kWidth), dz = numbers.floats(kRows * kRank);
  const std::vector<int32_t> tokens = numbers.tokens(kRows, kVocab);
  const cov_projection p = {expected_basis.data(), table.data(), kWidth, kRank, kVocab};
  struct Results {
    std::vector<float> z = std::vector<float>(kRows * kRank), y = std::vector<float>(kRows * kWidth),
                       d_z = z, d_x = y, d_basis = std::vector<float>(kWidth * kRank),
                       d_table = std::vector<float>(kVocab * kWidth);
    bool operator==(const Results&) const = default;
  };
  Results results, expected;
  const auto all = [&](Results& r, int32_t with) -> cov_status {
    const int32_t* t = tokens.data();
    cov_status s = cov_projection_encode(&p, x.data(), t, kRows, with, r.z.data());
    if (s.code == COV_OK) s = cov_projection_decode(&p, r.z.data(), t, kRows, with, r.y.data());
    if (s.code != COV_OK) return s;
    // Sums: begun again when the call is made again.
    r.d_basis.assign(r.d_basis.size(), 0);
    r.d_table.assign(r.d_table.size(), 0);
    s = cov_projection_decode_backward(&p, x.data(), r.z.data(), t, kRows, with, r.d_z.data(),
                                       r.d_basis.data(), r.d_table.data());
    if (s.code == COV_OK)
      s = cov_projection_encode_backward(&p, dz.data(), x.data(), t, kRows, with, r.d_x.data(),
                                         r.d_basis.data(), r.d_table.data());
    return s;
  };
  CHECK_OK(all(expected, 1));
  run_if_it_allocates({"projections", [&] { results = {}; }, [&] { return all(results, threads); },
                       [] { return true; }, [&] { return results == expected; }});
  const std::vector<float> gradient = numbers.floats(kWidth * kRank);
  std::vector<float> own, momentum, stepped = expected_basis, moved(gradient.size());
  CHECK_OK(cov_projection_step(stepped.data(), gradient.data(), moved.data(), kWidth, kRank, 0.1f,
                               0.9f));
  run({"step of a basis",
       [&] {
         own = expected_basis;
         momentum.assign(gradient.size(), 0);
       },
       [&] {
         return cov_projection_step(own.data(), gradient.data(), momentum.data(), kWidth, kRank,
                                    0.1f, 0.9f);
       },
       [&] { return own == expected_basis && momentum == zeros(momentum.size()); },
       [&] { return own == stepped && momentum == moved; }});
}

// Merging and applying in one call; applying bodies and merged updates.
void test_updates(int threads) {
  const auto tensors = table({4096 * 2 + 100, 7, 0, 64});
  const auto count = static_cast<int32_t>(tensors.size());
  const cov_sparse_format format = {2, 64};
  Random random(8);
  std::vector<std::vector<uint8_t>> bodies;
  for (int peer = 0; peer < 3; ++peer) {
    const auto values = random.values(total(tensors), 1);
    bodies.push_back(
        compress(tensors, format, values, zeros(values.size()), zeros(values.size())).body);
  }
  const uint8_t* data[] = {bodies[0].data(), bodies[1].data(), bodies[2].data()};
  const uint64_t sizes[] = {bodies[0].size(), bodies[1].size(), bodies[2].size()};
  const float weights[] = {1, 0.5f, 2};
  const cov_merge_input input = {data, sizes, weights, 3, COV_MERGE_CONTRIBUTORS, 1};
  const auto start = random.values(total(tensors), 1);
  auto parameters = start, expected = start;
  int32_t skipped[4], skipped_count = 0;
  const auto update = [&](std::vector<float>& to, int32_t with) {
    return cov_sparse_update(to.data(), to.size(), &input, tensors.data(), count, format, 0.5f,
                             with, skipped, &skipped_count);
  };
  CHECK_OK(update(expected, 1));
  run({"update", [&] { parameters = start; }, [&] { return update(parameters, threads); },
       [&] { return parameters == start; }, [&] { return parameters == expected; }});
  expected = start;
  const auto apply = [&](std::vector<float>& to) {
    return cov_sparse_apply(to.data(), to.size(), data[0], sizes[0], tensors.data(), count, format,
                            0.5f);
  };
  CHECK_OK(apply(expected));
  run_if_it_allocates({"apply a body", [&] { parameters = start; },
                       [&] { return apply(parameters); }, [&] { return parameters == start; },
                       [&] { return parameters == expected; }});
  cov_bytes merged = {};
  CHECK_OK(cov_sparse_merge(&input, tensors.data(), count, format, 1, &merged));
  CHECK_OK(update(expected = start, 1));
  run_if_it_allocates({"apply a merged update", [&] { parameters = start; },
                       [&] {
                         return cov_merged_apply(parameters.data(), parameters.size(), merged.data,
                                                 merged.length, tensors.data(), count, 0.5f,
                                                 skipped, &skipped_count);
                       },
                       [&] { return parameters == start; }, [&] { return parameters == expected; }});
  cov_bytes_free(&merged);
  uint8_t root[COV_HASH_BYTES];
  const auto of_table = [&] { return cov_tensor_table_root(tensors.data(), count, root); };
  run_if_it_allocates({"root of a table", [] {}, of_table, [] { return true; }, [] { return true; }});
  const std::vector<uint8_t> items(33 * COV_HASH_BYTES, 7);
  run_if_it_allocates({"Merkle root", [] {},
                       [&] { return cov_merkle_root(items.data(), 33, root); },
                       [] { return true; }, [] { return true; }});
}

}  // namespace

int main() {
  const int64_t before = live.load();
  for (const int threads : {1, 3}) {
    test_delta(threads);
    test_activations(threads);
    test_projections(threads);
    test_updates(threads);
  }
  CHECK(live.load() == before);
  TEST_MAIN_END("memory/wire");
}
