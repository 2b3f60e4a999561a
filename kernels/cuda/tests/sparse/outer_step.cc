// The whole outer step of several peers over several rounds, once on the CPU and once on the device:
// initial parameters, compressing, merging, applying and the state root have the same bits, whether
// a peer applies the merged update or the updates themselves.
#include <array>

#include "covenant/hash.h"
#include "on_device.h"

namespace {

using namespace covenant_test;
using Root = std::array<uint8_t, COV_HASH_BYTES>;

constexpr int kPeers = 4;
constexpr int kRounds = 3;
constexpr float kRate = 0.4f;
constexpr cov_sparse_format kFormat = {2, 64};

cov_model_shape small_shape() {
  cov_model_shape shape{};
  shape.vocab_size = 300;
  shape.hidden_size = 48;
  shape.intermediate_size = 130;
  shape.layer_count = 2;
  shape.head_count = 4;
  shape.kv_head_count = 2;
  shape.max_positions = 16;
  shape.tie_word_embeddings = 1;
  shape.rope_theta = 10000;
  shape.rms_norm_eps = 1e-5;
  return shape;
}

struct World {
  cov_device* device;
  Table tensors;
  uint64_t length;
};

// What peer `p` has trained its parameters to in a round.
std::vector<float> trained(const std::vector<float>& base, int round, int p) {
  Random random(static_cast<uint32_t>(100 * round + p));
  std::vector<float> out = base;
  for (float& value : out)
    value = value - static_cast<float>(random.laplace() * 1e-3 * (1 + p));
  return out;
}

std::vector<float> initial_on_device(const World& world, const cov_model_shape& shape) {
  const OnDevice parameters(world.device, zeros(world.length));
  CHECK_OK(cov_device_initial_parameters(world.device, &shape, 2026, parameters.data(),
                                         world.length));
  return parameters.read();
}

void test_rounds(const World& world, std::vector<float> theta) {
  const int32_t count = count_of(world.tensors);
  const std::vector<float> weights = {1.0f, 0.5f, 0.0f, 0.7f};
  std::vector<std::vector<float>> feedback_cpu(kPeers, zeros(world.length));
  std::vector<std::vector<float>> feedback_gpu = feedback_cpu;
  const OnDevice stepped(world.device, theta);
  const OnDevice applied(world.device, theta);
  std::vector<int32_t> skipped(world.tensors.size());
  int32_t skips = 0;
  Root before{};
  for (int round = 0; round < kRounds; ++round) {
    std::vector<std::vector<uint8_t>> bodies;
    std::vector<const uint8_t*> pointers;
    std::vector<uint64_t> sizes;
    for (int p = 0; p < kPeers; ++p) {
      const auto i = static_cast<size_t>(p);
      const std::vector<float> current = trained(theta, round, p);
      const Compressed cpu =
          compress(world.tensors, kFormat, theta, current, feedback_cpu[i], 0.95f, 2);
      const Compressed gpu = compress_on_device(world.device, world.tensors, kFormat, theta,
                                                current, feedback_gpu[i], 0.95f);
      CHECK_OK(cpu.status);
      CHECK_OK(gpu.status);
      CHECK(gpu.body == cpu.body);
      feedback_cpu[i] = cpu.error_feedback;
      feedback_gpu[i] = gpu.error_feedback;
      bodies.push_back(gpu.body);
    }
    for (const auto& body : bodies) {
      pointers.push_back(body.data());
      sizes.push_back(body.size());
    }
    const cov_merge_input input{pointers.data(), sizes.data(), weights.data(), kPeers,
                                COV_MERGE_CONTRIBUTORS, 1};
    cov_bytes merged{};
    CHECK_OK(cov_sparse_merge(&input, world.tensors.data(), count, kFormat, 2, &merged));
    CHECK_OK(cov_merged_apply(theta.data(), world.length, merged.data, merged.length,
                              world.tensors.data(), count, kRate, skipped.data(), &skips));
    CHECK_OK(cov_device_sparse_step(world.device, stepped.data(), nullptr, world.length, &input,
                                    world.tensors.data(), count, kFormat, kRate, skipped.data(),
                                    &skips));
    CHECK_OK(cov_device_merged_apply(world.device, applied.data(), world.length, merged.data,
                                     merged.length, world.tensors.data(), count, kRate,
                                     skipped.data(), &skips));
    cov_bytes_free(&merged);
    Root cpu_root{};
    Root step_root{};
    Root apply_root{};
    CHECK_OK(cov_state_root(theta.data(), world.length, world.tensors.data(), count, 2,
                            cpu_root.data()));
    CHECK_OK(cov_device_state_root(world.device, stepped.data(), world.length,
                                   world.tensors.data(), count, step_root.data()));
    CHECK_OK(cov_device_state_root(world.device, applied.data(), world.length,
                                   world.tensors.data(), count, apply_root.data()));
    CHECK(step_root == cpu_root);
    CHECK(apply_root == cpu_root);
    CHECK(cpu_root != before);
    before = cpu_root;
  }
}

}  // namespace

int main() {
  if (!have_device()) return kSkipped;
  const DevicePointer opened = open_device();
  const cov_model_shape shape = small_shape();
  World world{opened.get(), Table(static_cast<size_t>(cov_tensor_count(&shape))),
              cov_parameter_count(&shape)};
  CHECK_OK(cov_tensor_table(&shape, world.tensors.data(), count_of(world.tensors)));
  std::vector<float> theta(world.length);
  CHECK_OK(cov_initial_parameters(&shape, 2026, theta.data(), world.length));
  const std::vector<float> on_device = initial_on_device(world, shape);
  CHECK_SAME(on_device.data(), theta.data(), 4 * world.length);
  test_rounds(world, theta);
  uint64_t bytes = 0;
  uint64_t peak = 0;
  CHECK_OK(cov_device_memory(world.device, &bytes, &peak));
  std::printf("outer step: %d peers, %d rounds, %llu parameters, %llu bytes of scratch\n", kPeers,
              kRounds, static_cast<unsigned long long>(world.length),
              static_cast<unsigned long long>(bytes));
  TEST_MAIN_END("cuda outer step");
}
