// State roots: the device's bits are the CPU's, for every length of the last block.
#include <vector>

#include "device_test.h"
#include "sparse/fixtures.h"

namespace {

using covenant_test::table;

void test_root(const std::vector<cov_tensor_info>& tensors, uint32_t seed) {
  covenant_test::Random random(seed);
  const uint64_t length = covenant_test::total(tensors);
  std::vector<float> parameters = random.values(length, 0.02);
  const auto count = static_cast<int32_t>(tensors.size());
  uint8_t wanted[COV_HASH_BYTES];
  CHECK_OK(cov_state_root(parameters.data(), length, tensors.data(), count, 1, wanted));
  const auto device = covenant_test::open_device();
  void* memory = nullptr;
  CHECK_OK(cov_device_allocate(device.get(), 4 * length, &memory));
  CHECK_OK(cov_device_upload(device.get(), memory, parameters.data(), 4 * length));
  const auto* const on_device = static_cast<const float*>(memory);
  uint8_t found[COV_HASH_BYTES] = {};
  CHECK_OK(cov_device_state_root(device.get(), on_device, length, tensors.data(), count, found));
  CHECK_SAME(found, wanted, COV_HASH_BYTES);
  if (length == 0) return;
  CHECK_CODE(cov_device_state_root(device.get(), on_device, length - 1, tensors.data(), count,
                                   found),
             COV_INVALID_ARGUMENT);
  // Another bit, another root.
  parameters[length / 2] += 1.0f;
  CHECK_OK(cov_device_upload(device.get(), memory, parameters.data(), 4 * length));
  CHECK_OK(cov_device_state_root(device.get(), on_device, length, tensors.data(), count, found));
  CHECK(std::memcmp(found, wanted, COV_HASH_BYTES) != 0);
}

}  // namespace

int main() {
  if (!covenant_test::have_device()) return covenant_test::kSkipped;
  test_root({}, 1);
  test_root(table({0, 1, 0}), 2);
  // Every residue of the length modulo a block, at aligned and unaligned addresses.
  test_root(table({1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 29, 30, 31, 32, 4096}),
            3);
  test_root(table({7, 262144, 262145, 600000}), 4);
  TEST_MAIN_END("cuda state root");
}
