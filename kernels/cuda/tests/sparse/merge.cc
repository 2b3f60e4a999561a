// Merging on the device: the merged update and the applied parameters have the CPU's bits.
#include <limits>

#include "on_device.h"

namespace {

using namespace covenant_test;

cov_device* device = nullptr;

struct Round {
  Table tensors;
  cov_sparse_format format;
  std::vector<std::vector<uint8_t>> bodies;
  std::vector<float> weights;
};

Round make_round(const Table& tensors, cov_sparse_format format, int peers, uint32_t seed) {
  Round round{tensors, format, {}, {}};
  Random random(seed);
  const uint64_t n = total(tensors);
  for (int p = 0; p < peers; ++p) {
    // Peers of different size, so that clipping has work to do; one tensor may send nothing.
    std::vector<float> base = random.values(n, 0.01 * (1 + p % 5));
    if (p % 4 == 3) std::fill_n(base.begin(), static_cast<long>(n / 3), 0.0f);
    const Compressed update = compress(tensors, format, base, zeros(n), zeros(n));
    CHECK_OK(update.status);
    round.bodies.push_back(update.body);
    round.weights.push_back(p == 1 ? 0.0f : 0.25f + static_cast<float>(random.uniform()));
  }
  if (peers == 2) round.weights[1] = 1.0f;
  return round;
}

struct Input {
  std::vector<const uint8_t*> pointers;
  std::vector<uint64_t> sizes;
  cov_merge_input input{};
  Input(const Round& round, int32_t rule, int32_t clip) {
    for (const auto& body : round.bodies) {
      pointers.push_back(body.data());
      sizes.push_back(body.size());
    }
    input = {pointers.data(), sizes.data(), round.weights.data(),
             static_cast<int32_t>(round.bodies.size()), rule, clip};
  }
};

uint16_t to_bf16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

void same(const Round& round, int32_t rule, int32_t clip, float rate = 0.7f, size_t skew = 0) {
  const Input input(round, rule, clip);
  const int32_t count = count_of(round.tensors);
  cov_bytes cpu{};
  cov_bytes gpu{};
  CHECK_OK(cov_sparse_merge(&input.input, round.tensors.data(), count, round.format, 1, &cpu));
  CHECK_OK(cov_device_sparse_merge(device, &input.input, round.tensors.data(), count,
                                   round.format, &gpu));
  CHECK(gpu.length == cpu.length);
  if (gpu.length == cpu.length) CHECK_SAME(gpu.data, cpu.data, cpu.length);

  Random random(99);
  const uint64_t n = total(round.tensors);
  const std::vector<float> before = random.values(n, 0.02);
  std::vector<float> wanted = before;
  std::vector<int32_t> skipped_cpu(round.tensors.size() + 1);
  std::vector<int32_t> skipped_gpu(round.tensors.size() + 1);
  int32_t skips_cpu = 0;
  int32_t skips_gpu = 0;
  CHECK_OK(cov_merged_apply(wanted.data(), n, cpu.data, cpu.length, round.tensors.data(), count,
                            rate, skipped_cpu.data(), &skips_cpu));
  const OnDevice parameters(device, before, skew);
  const OnDevice shadow(device, zeros((n + 1) / 2));
  CHECK_OK(cov_device_sparse_step(device, parameters.data(),
                                  reinterpret_cast<uint16_t*>(shadow.data()), n, &input.input,
                                  round.tensors.data(), count, round.format, rate,
                                  skipped_gpu.data(), &skips_gpu));
  const std::vector<float> found = parameters.read();
  CHECK_SAME(found.data(), wanted.data(), 4 * n);
  CHECK(skips_gpu == skips_cpu);
  const OnDevice second(device, before, skew);
  CHECK_OK(cov_device_merged_apply(device, second.data(), n, cpu.data, cpu.length,
                                   round.tensors.data(), count, rate, skipped_gpu.data(),
                                   &skips_gpu));
  CHECK(skips_gpu == skips_cpu);
  const std::vector<float> applied = second.read();
  CHECK_SAME(applied.data(), wanted.data(), 4 * n);
  CHECK_SAME(skipped_gpu.data(), skipped_cpu.data(), 4 * static_cast<size_t>(skips_cpu));
  const std::vector<float> halves = shadow.read();
  const auto* const bf16 = reinterpret_cast<const uint16_t*>(halves.data());
  bool shadowed = true;
  for (int32_t t = 0, next = 0; t < count; ++t) {
    const bool skip = next < skips_cpu && skipped_cpu[static_cast<size_t>(next)] == t;
    next += skip ? 1 : 0;
    const cov_tensor_info& tensor = round.tensors[static_cast<size_t>(t)];
    for (uint64_t i = tensor.offset; i < tensor.offset + tensor.length && !skip; ++i)
      shadowed &= bf16[i] == to_bf16(wanted[i]);
  }
  CHECK(shadowed);
  cov_bytes_free(&cpu);
  cov_bytes_free(&gpu);
}

void test_shapes() {
  uint32_t seed = 0;
  const Table tensors = table({0, 1, 130, 4096, 4097, 3 * 4096 + 2049, 0});
  for (const int32_t mode : {1, 2}) {
    for (const int32_t keep : {1, 64, 130, 4096}) {
      const Round round = make_round(tensors, {mode, keep}, 5, ++seed);
      for (const int32_t rule : {COV_MERGE_CONTRIBUTORS, COV_MERGE_ALL}) {
        same(round, rule, 0);
        same(round, rule, 1);
      }
    }
  }
  for (const int peers : {1, 2, 9, 67}) {
    const Round round = make_round(table({4096, 500}), {2, 64}, peers, ++seed);
    same(round, COV_MERGE_CONTRIBUTORS, 1);
    same(round, COV_MERGE_ALL, 1, -0.3f, 1);
  }
  same(make_round({}, {2, 64}, 3, 5), COV_MERGE_ALL, 1);
}

// Weights that overflow fp32 make a tensor be left alone.
void test_overflow() {
  Round round = make_round(table({4096, 4096, 4096}), {2, 64}, 3, 77);
  round.weights = {3e38f, 2e38f, 1e38f};
  same(round, COV_MERGE_CONTRIBUTORS, 0);
  const uint64_t n = total(round.tensors);
  std::vector<float> base(n, 0.001f);
  std::fill_n(base.begin() + 4096, 4096, 1e29f);
  for (auto& body : round.bodies)
    body = compress(round.tensors, round.format, base, zeros(n), zeros(n)).body;
  round.weights = {1e10f, 1.0f, 1.0f};
  same(round, COV_MERGE_ALL, 0);
  round.weights = {1e-45f, 1e-44f, 1e-45f};
  same(round, COV_MERGE_CONTRIBUTORS, 1);
}

// Every way of damaging a body is refused in the words of the CPU, and nothing is applied.
void test_refusals(int32_t mode) {
  const Round good = make_round(table({70, 4096, 2 * 4096 + 5}), {mode, 64}, 3, 8);
  const int32_t count = count_of(good.tensors);
  Random random(123);
  const uint64_t n = total(good.tensors);
  const std::vector<float> before = zeros(n);
  const OnDevice parameters(device, before);
  int refused = 0;
  for (int trial = 0; trial < 150; ++trial) {
    Round bad = good;
    std::vector<uint8_t>& body = bad.bodies[static_cast<size_t>(trial % 3)];
    const auto at = random.below(static_cast<uint32_t>(body.size()));
    if (trial % 50 == 49)
      body.pop_back();
    else
      body[at] ^= static_cast<uint8_t>(1u << random.below(8));
    // A second bit nearby may leave the number of set bits as it is.
    if (trial % 3 == 1 && at + 8 < body.size())
      body[at + random.below(8)] ^= static_cast<uint8_t>(1u << random.below(8));
    const Input input(bad, COV_MERGE_CONTRIBUTORS, 1);
    cov_bytes cpu{};
    cov_bytes gpu{};
    const cov_status c =
        cov_sparse_merge(&input.input, bad.tensors.data(), count, bad.format, 1, &cpu);
    const cov_status g = cov_device_sparse_merge(device, &input.input, bad.tensors.data(), count,
                                                 bad.format, &gpu);
    CHECK(g.code == c.code);
    CHECK(std::strcmp(g.message, c.message) == 0);
    CHECK(gpu.length == cpu.length);
    if (c.code == COV_OK) CHECK_SAME(gpu.data, cpu.data, cpu.length);
    if (c.code != COV_OK) {
      ++refused;
      CHECK(gpu.data == nullptr);
      int32_t skipped[3];
      int32_t skips = 0;
      CHECK_CODE(cov_device_sparse_step(device, parameters.data(), nullptr, n, &input.input,
                                        bad.tensors.data(), count, bad.format, 1.0f, skipped,
                                        &skips),
                 c.code);
    }
    cov_bytes_free(&cpu);
    cov_bytes_free(&gpu);
  }
  CHECK(refused > 20);
  CHECK(parameters.read() == before);

  Round weights = good;
  weights.weights = {0, 0, 0};
  cov_bytes merged{};
  const auto call = [&](const Round& round, int32_t rule) {
    const Input input(round, rule, 0);
    return cov_device_sparse_merge(device, &input.input, round.tensors.data(), count, round.format,
                                   &merged);
  };
  CHECK_CODE(call(weights, COV_MERGE_ALL), COV_INVALID_ARGUMENT);
  weights.weights = {1, -1, 1};
  CHECK_CODE(call(weights, COV_MERGE_ALL), COV_INVALID_ARGUMENT);
  weights.weights[1] = std::numeric_limits<float>::quiet_NaN();
  CHECK_CODE(call(weights, COV_MERGE_ALL), COV_INVALID_ARGUMENT);
  CHECK_CODE(call(good, 7), COV_INVALID_ARGUMENT);
}

// The same for merged updates; those that are still valid are applied with the CPU's bits.
void test_damaged_merged() {
  const Round round = make_round(table({70, 4096, 2 * 4096 + 5}), {2, 64}, 6, 9);
  const int32_t count = count_of(round.tensors);
  const Input input(round, COV_MERGE_CONTRIBUTORS, 0);
  cov_bytes merged{};
  CHECK_OK(cov_sparse_merge(&input.input, round.tensors.data(), count, round.format, 1, &merged));
  Random random(31);
  const uint64_t n = total(round.tensors);
  int refused = 0;
  for (int trial = 0; trial < 300; ++trial) {
    std::vector<uint8_t> bytes(merged.data, merged.data + merged.length);
    // Most bytes are values; positions follow the headers of chunks.
    const uint32_t limit = static_cast<uint32_t>(bytes.size());
    const uint32_t at = random.below(trial % 2 == 0 ? limit : std::min(limit, 200u));
    if (trial % 60 == 59)
      bytes.resize(at);
    else
      bytes[at] ^= static_cast<uint8_t>(1u << random.below(8));
    std::vector<float> wanted = zeros(n);
    const OnDevice parameters(device, wanted);
    int32_t cpu_skipped[3] = {};
    int32_t gpu_skipped[3] = {};
    int32_t cpu_skips = 0;
    int32_t gpu_skips = 0;
    const cov_status c =
        cov_merged_apply(wanted.data(), n, bytes.data(), bytes.size(), round.tensors.data(), count,
                         0.5f, cpu_skipped, &cpu_skips);
    const cov_status g =
        cov_device_merged_apply(device, parameters.data(), n, bytes.data(), bytes.size(),
                                round.tensors.data(), count, 0.5f, gpu_skipped, &gpu_skips);
    CHECK(g.code == c.code);
    CHECK(std::strcmp(g.message, c.message) == 0);
    const std::vector<float> found = parameters.read();
    CHECK_SAME(found.data(), wanted.data(), 4 * n);
    if (c.code == COV_OK) CHECK(gpu_skips == cpu_skips);
    refused += c.code != COV_OK;
  }
  CHECK(refused > 50);
  cov_bytes_free(&merged);
}

}  // namespace

int main() {
  if (!have_device()) return kSkipped;
  const DevicePointer opened = open_device();
  device = opened.get();
  test_shapes();
  test_overflow();
  test_refusals(1);
  test_refusals(2);
  test_damaged_merged();
  TEST_MAIN_END("cuda merge");
}
