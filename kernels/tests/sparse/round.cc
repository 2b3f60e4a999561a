// One round of the mesh on every CPU path: peers train, compress and apply what all have sent. The
// state root is one, whatever path and number of threads each step runs on.
#include <map>
#include <string>

#include "covenant/hash.h"
#include "covenant/model.h"
#include "engine/support.h"
#include "sparse/fixtures.h"

using namespace covenant_test;

namespace {

constexpr cov_adamw_options kAdamw = {1e-2f, 0.9f, 0.95f, 1e-8f, 0.1f, 1.0f};
constexpr int32_t kPeers = 3, kSteps = 2;

std::string root_of(const std::vector<float>& parameters,
                    const std::vector<cov_tensor_info>& tensors, int32_t threads) {
  uint8_t root[COV_HASH_BYTES] = {};
  CHECK_OK(cov_state_root(parameters.data(), parameters.size(), tensors.data(),
                          static_cast<int32_t>(tensors.size()), threads, root));
  return std::string(reinterpret_cast<const char*>(root), sizeof root);
}

// What a peer sends after its inner steps from `base`.
Compressed inner_steps(const cov_model_shape& shape, const std::vector<float>& base,
                       const std::vector<cov_tensor_info>& tensors, cov_sparse_format format,
                       uint32_t peer, int32_t threads) {
  TestModel model(shape, base, threads);
  Numbers numbers(900 + peer);
  for (int32_t step = 0; step < kSteps; ++step) {
    const auto tokens = numbers.tokens(4 * 21, shape.vocab_size);
    const auto targets = numbers.tokens(4 * 21, shape.vocab_size);
    const cov_batch batch = {tokens.data(), targets.data(), 4, 21};
    CHECK_OK(cov_model_train_step(model, &batch, &kAdamw, nullptr, nullptr));
  }
  const float* trained = model.buffer(COV_PARAMETERS);
  const auto own = compress(tensors, format, base, {trained, trained + base.size()},
                            zeros(base.size()), 0.95f, threads);
  CHECK_OK(own.status);
  return own;
}

// Roots after each of two rounds.
std::string rounds(const cov_model_shape& shape, cov_sparse_format format, int32_t threads) {
  std::vector<cov_tensor_info> tensors(static_cast<size_t>(cov_tensor_count(&shape)));
  const auto count = static_cast<int32_t>(tensors.size());
  CHECK_OK(cov_tensor_table(&shape, tensors.data(), count));
  std::vector<float> parameters = lively_parameters(shape, 77);
  std::string roots = root_of(parameters, tensors, threads);
  for (int round = 0; round < 2; ++round) {
    std::vector<Compressed> sent;
    const uint8_t* bodies[kPeers];
    uint64_t sizes[kPeers];
    const float weights[kPeers] = {1.0f, 0.5f, 2.0f};
    for (uint32_t peer = 0; peer < kPeers; ++peer)
      sent.push_back(inner_steps(shape, parameters, tensors, format, peer, threads));
    for (size_t peer = 0; peer < kPeers; ++peer) {
      bodies[peer] = sent[peer].body.data();
      sizes[peer] = sent[peer].body.size();
      roots += root_of(sent[peer].error_feedback, tensors, threads);
    }
    const cov_merge_input input = {bodies, sizes, weights, kPeers, COV_MERGE_CONTRIBUTORS, 1};
    std::vector<int32_t> skipped(tensors.size());
    int32_t skipped_count = -1;
    CHECK_OK(cov_sparse_update(parameters.data(), parameters.size(), &input, tensors.data(), count,
                               format, 0.7f, threads, skipped.data(), &skipped_count));
    CHECK(skipped_count == 0);
    roots += root_of(parameters, tensors, threads);
  }
  return roots;
}

void test(const cov_model_shape& shape, std::initializer_list<cov_sparse_format> formats) {
  for (const cov_sparse_format format : formats) {
    std::map<std::string, std::string> seen;  // roots by whoever was first to have them
    for (const std::string& path : available_paths()) {
      CHECK_OK(cov_set_cpu_path(path.c_str()));
      for (const int32_t threads : {1, 2}) seen.emplace(rounds(shape, format, threads), path);
    }
    CHECK_OK(cov_set_cpu_path(nullptr));
    CHECK(seen.size() == 1);
    if (seen.size() != 1)
      for (const auto& [roots, path] : seen) std::fprintf(stderr, "  %s differs\n", path.c_str());
    // Each root is of another state.
    const std::string& roots = seen.begin()->first;
    for (size_t i = 0; i + 32 < roots.size(); i += 32)
      CHECK(roots.substr(i, 32) != roots.substr(i + 32, 32));
  }
}

}  // namespace

int main() {
  CHECK(available_paths().size() >= 1);
  test(tiny_shape(), {{2, 64}, {1, 64}, {2, 301}});
  if (!kSanitized) test(small_shape(), {{2, 64}});
  TEST_MAIN_END("sparse/round");
}
