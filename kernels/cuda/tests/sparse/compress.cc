// Compress on the device: body and error feedback have the CPU's bits, whatever the data.
#include <limits>

#include "on_device.h"

namespace {

using namespace covenant_test;

cov_device* device = nullptr;

void same(const Table& tensors, cov_sparse_format format, const std::vector<float>& base,
          const std::vector<float>& current, const std::vector<float>& e, float decay = 0.95f,
          size_t skew = 0) {
  const Compressed cpu = compress(tensors, format, base, current, e, decay);
  const Compressed gpu =
      compress_on_device(device, tensors, format, base, current, e, decay, skew);
  CHECK_OK(cpu.status);
  CHECK_OK(gpu.status);
  CHECK(gpu.body == cpu.body);
  CHECK_SAME(gpu.error_feedback.data(), cpu.error_feedback.data(), 4 * e.size());
}

void test_shapes() {
  for (const int32_t mode : {1, 2}) {
    uint32_t seed = 100;
    for (const int32_t keep : {1, 2, 63, 64, 100, 128, 129, 1000, 4095, 4096}) {
      Random random(++seed);
      const Table tensors = table({0, 1, 7, 4096, 64, 4097, 0, 12288 + 61, 4095});
      const uint64_t n = total(tensors);
      same(tensors, {mode, keep}, random.values(n, 0.02), random.values(n, 0.02),
           random.values(n, 0.01));
    }
  }
  Random random(7);
  const Table tensors = table({3 * 4096, 5 * 4096});
  const uint64_t n = total(tensors);
  for (const float decay : {0.0f, 0.5f, 1.0f}) {
    same(tensors, {2, 64}, random.values(n, 1), random.values(n, 1), random.values(n, 1), decay);
    same(tensors, {2, 64}, random.values(n, 1), random.values(n, 1), random.values(n, 1), decay, 1);
  }
  same({}, {2, 64}, {}, {}, {});
}

// Data that a fast search could get wrong.
void test_hard_data() {
  const Table tensors = table({4096, 4096, 4096, 2049, 4096});
  const uint64_t n = total(tensors);
  const std::vector<float> none = zeros(n);
  same(tensors, {2, 64}, none, none, none);
  Random random(3);
  for (int kind = 0; kind < 9; ++kind) {
    std::vector<float> base(n);
    for (uint64_t i = 0; i < n; ++i) {
      const float g = static_cast<float>(random.gaussian());
      switch (kind) {
        case 0:  // all equal
          base[i] = -3.0f;
          break;
        case 1:  // many ties at few magnitudes
          base[i] = static_cast<float>(static_cast<int>(g * 2));
          break;
        case 2:  // the large ones are neighbours, all with few threads
          base[i] = i % 4096 < 300 ? 5 + g : g * 1e-3f;
          break;
        case 3:  // and spread by 1024: all in the groups of few threads
          base[i] = i % 1024 < 16 ? 5 + g : g * 1e-3f;
          break;
        case 4:  // subnormals and zeros of both signs
          base[i] = i % 3 == 0 ? -0.0f : g * 1e-41f;
          break;
        case 5:  // a chunk too small beside its neighbours
          base[i] = i < 4096 ? g * 1e-30f : g * 1e20f;
          break;
        case 6:  // heavy tails
          base[i] = g * g * g * g * g;
          break;
        case 7:  // fewer than k that are not zero
          base[i] = i % 500 == 0 ? g : 0.0f;
          break;
        default:  // one huge value in each chunk
          base[i] = i % 4096 == 4000 ? 1e28f : g;
      }
    }
    for (const int32_t keep : {1, 64, 65, 128, 300}) {
      same(tensors, {2, keep}, base, none, none);
      same(tensors, {1, keep}, base, none, random.values(n, 1e-3));
    }
  }
}

void test_refusals() {
  const Table tensors = table({100, 5000, 4096});
  const uint64_t n = total(tensors);
  Random random(11);
  const std::vector<float> values = random.values(n, 1);
  for (const float bad : {std::numeric_limits<float>::infinity(),
                          std::numeric_limits<float>::quiet_NaN(), 3e38f}) {
    std::vector<float> base = values;
    base[4500] = bad;
    base[6000] = bad;
    const Compressed cpu = compress(tensors, {2, 64}, base, values, zeros(n));
    const Compressed gpu =
        compress_on_device(device, tensors, {2, 64}, base, values, zeros(n), 0.95f);
    CHECK(cpu.status.code != COV_OK);
    CHECK(gpu.status.code == cpu.status.code);
    CHECK(std::strcmp(gpu.status.message, cpu.status.message) == 0);
  }
  std::vector<uint8_t> body(12);
  const OnDevice memory(device, values);
  cov_sparse_source source{memory.data(), memory.data(), memory.data(), n, 0.5f};
  const auto call = [&](cov_sparse_format format, uint64_t bytes) {
    return cov_device_sparse_compress(device, &source, tensors.data(), count_of(tensors), format,
                                      body.data(), bytes);
  };
  CHECK_CODE(call({2, 64}, 12), COV_INVALID_ARGUMENT);
  CHECK_CODE(call({3, 64}, 12), COV_INVALID_ARGUMENT);
  CHECK_CODE(call({2, 0}, 12), COV_INVALID_ARGUMENT);
  source.error_decay = 1.5f;
  CHECK_CODE(call({2, 64}, 12), COV_INVALID_ARGUMENT);
  source.error_decay = 0.5f;
  source.length = n - 1;
  CHECK_CODE(call({2, 64}, 12), COV_INVALID_ARGUMENT);
  source.length = n;
  source.base = nullptr;
  CHECK_CODE(call({2, 64}, 12), COV_INVALID_ARGUMENT);
}

}  // namespace

int main() {
  if (!have_device()) return kSkipped;
  const DevicePointer opened = open_device();
  device = opened.get();
  test_shapes();
  test_hard_data();
  test_refusals();
  TEST_MAIN_END("cuda compress");
}
