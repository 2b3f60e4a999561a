// The same of the update codec and the hashes: see engine.cc.
#include "failing.h"

#include <vector>

#include "../engine/support.h"
#include "covenant/hash.h"
#include "covenant/sparse.h"

using namespace covenant_test;

namespace {

constexpr int32_t kPeers = 3;
constexpr cov_sparse_format kFormat = {2, 64};

struct Fixture {
  cov_model_shape shape = small_shape();
  std::vector<cov_tensor_info> tensors;
  std::vector<float> base, current, feedback, first_feedback;
  std::vector<uint8_t> body;
  std::vector<int32_t> skipped;
  int32_t count = 0, threads = 1;

  Fixture() {
    tensors.resize(static_cast<size_t>(cov_tensor_count(&shape)));
    count = static_cast<int32_t>(tensors.size());
    CHECK_OK(cov_tensor_table(&shape, tensors.data(), count));
    Numbers numbers(11);
    const int64_t length = static_cast<int64_t>(cov_parameter_count(&shape));
    base = numbers.floats(length);
    current = numbers.floats(length);
    first_feedback = feedback = numbers.floats(length, 0.1f);
    uint64_t bytes = 0, kept = 0;
    CHECK_OK(cov_sparse_size(tensors.data(), count, kFormat, &bytes, &kept));
    body.resize(bytes);
    skipped.resize(tensors.size());
  }
  cov_status compress() {
    const cov_sparse_source source = {base.data(), current.data(), feedback.data(), base.size(),
                                      0.95f};
    return cov_sparse_compress(&source, tensors.data(), count, kFormat, threads, body.data(),
                               body.size());
  }
};

void test_compress(int threads) {
  Fixture f;
  f.threads = threads;
  CHECK_OK(f.compress());
  const std::vector<uint8_t> expected = f.body;
  const std::vector<float> kept = f.feedback;
  run({"compress", [&] { f.feedback = f.first_feedback; }, [&] { return f.compress(); },
       [&] { return f.feedback == f.first_feedback; },
       [&] { return f.body == expected && f.feedback == kept; }});
}

void test_merge(int threads) {
  Fixture f;
  std::vector<std::vector<uint8_t>> bodies;
  for (int32_t i = 0; i < kPeers; ++i) {
    CHECK_OK(f.compress());
    bodies.push_back(f.body);
  }
  const uint8_t* data[kPeers];
  uint64_t lengths[kPeers];
  const float weights[kPeers] = {1.0f, 0.5f, 2.0f};
  for (size_t i = 0; i < kPeers; ++i) {
    data[i] = bodies[i].data();
    lengths[i] = bodies[i].size();
  }
  const cov_merge_input input = {data, lengths, weights, kPeers, COV_MERGE_CONTRIBUTORS, 1};
  cov_bytes merged = {};
  const auto merge = [&] {
    return cov_sparse_merge(&input, f.tensors.data(), f.count, kFormat, threads, &merged);
  };
  CHECK_OK(merge());
  const std::vector<uint8_t> expected(merged.data, merged.data + merged.length);
  run({"merge", [&] { cov_bytes_free(&merged); }, merge,
       [&] { return merged.data == nullptr && merged.length == 0; },
       [&] {
         return merged.length == expected.size() &&
                std::memcmp(merged.data, expected.data(), expected.size()) == 0;
       }});
  cov_bytes_free(&merged);
}

void test_pack(int threads) {
  Fixture f;
  CHECK_OK(f.compress());
  cov_bytes packed = {};
  const auto pack = [&] {
    return cov_sparse_pack(f.body.data(), f.body.size(), f.tensors.data(), f.count, kFormat,
                           threads, &packed);
  };
  CHECK_OK(pack());
  const std::vector<uint8_t> expected(packed.data, packed.data + packed.length);
  run({"pack", [&] { cov_bytes_free(&packed); }, pack,
       [&] { return packed.data == nullptr && packed.length == 0; },
       [&] {
         return packed.length == expected.size() &&
                std::memcmp(packed.data, expected.data(), expected.size()) == 0;
       }});
  cov_bytes_free(&packed);
  std::vector<uint8_t> body(f.body.size());
  run({"unpack", [&] { body.assign(body.size(), 0xaa); },
       [&] {
         return cov_sparse_unpack(expected.data(), expected.size(), f.tensors.data(), f.count,
                                  kFormat, threads, body.data(), body.size());
       },
       [] { return true; }, [&] { return body == f.body; }});
}

void test_state_root(int threads) {
  Fixture f;
  uint8_t root[COV_HASH_BYTES] = {}, expected[COV_HASH_BYTES];
  const auto hash = [&] {
    return cov_state_root(f.base.data(), f.base.size(), f.tensors.data(), f.count, threads, root);
  };
  CHECK_OK(hash());
  std::memcpy(expected, root, sizeof root);
  run({"state root", [&] { std::memset(root, 0, sizeof root); }, hash, [] { return true; },
       [&] { return std::memcmp(root, expected, sizeof root) == 0; }});
}

}  // namespace

int main() {
  const int64_t before = live.load();
  for (const int threads : {1, 3}) {
    test_compress(threads);
    test_merge(threads);
    test_pack(threads);
    test_state_root(threads);
  }
  CHECK(live.load() == before);
  TEST_MAIN_END("memory/codec");
}
