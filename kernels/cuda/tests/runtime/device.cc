// Devices through the C API: what is reported, memory, limits, and failed allocations.
#include <cstring>
#include <vector>

#include "device_test.h"

namespace {

void test_report() {
  CHECK(cov_device_count() >= 1);
  CHECK(std::strstr(cov_device_report(), "CUDA device") != nullptr);
  cov_device_info info{};
  CHECK_OK(cov_device_info_at(0, &info));
  CHECK(info.name[0] != '\0');
  CHECK(info.memory_bytes > 0 && info.free_bytes <= info.memory_bytes);
  CHECK(info.driver_version >= 12000);
  CHECK_CODE(cov_device_info_at(-1, &info), COV_OUT_OF_RANGE);
  CHECK_CODE(cov_device_info_at(cov_device_count(), &info), COV_OUT_OF_RANGE);
  cov_device* device = nullptr;
  CHECK_CODE(cov_device_open(cov_device_count(), 0, &device), COV_OUT_OF_RANGE);
  CHECK(device == nullptr);
  CHECK_CODE(cov_device_open(0, 0, nullptr), COV_INVALID_ARGUMENT);
  cov_device_close(nullptr);
}

void test_round_trip() {
  const auto device = covenant_test::open_device();
  std::vector<uint8_t> data(100003);
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<uint8_t>(i * 7 + i / 251);
  void* memory = nullptr;
  CHECK_OK(cov_device_allocate(device.get(), data.size(), &memory));
  CHECK(reinterpret_cast<uintptr_t>(memory) % 256 == 0);
  CHECK_OK(cov_device_upload(device.get(), memory, data.data(), data.size()));
  std::vector<uint8_t> back(data.size());
  CHECK_OK(cov_device_download(device.get(), back.data(), memory, back.size()));
  CHECK(back == data);
  uint64_t bytes = 0;
  uint64_t peak = 0;
  CHECK_OK(cov_device_memory(device.get(), &bytes, &peak));
  CHECK(bytes == data.size() && peak == data.size());
  cov_device_free(device.get(), memory);
  cov_device_free(device.get(), nullptr);
  CHECK_OK(cov_device_memory(device.get(), &bytes, &peak));
  CHECK(bytes == 0 && peak == data.size());
  CHECK_OK(cov_device_allocate(device.get(), 0, &memory));
  CHECK(memory == nullptr);
}

void test_limits() {
  const auto device = covenant_test::open_device(1 << 20);
  void* memory = nullptr;
  CHECK_CODE(cov_device_allocate(device.get(), (1 << 20) + 1, &memory), COV_MEMORY_LIMIT);
  CHECK(memory == nullptr);
  CHECK_OK(cov_device_allocate(device.get(), 1 << 19, &memory));
  void* second = nullptr;
  CHECK_CODE(cov_device_allocate(device.get(), (1 << 19) + 1, &second), COV_MEMORY_LIMIT);
  CHECK_OK(cov_device_allocate(device.get(), 1 << 19, &second));

  // No device has this much; the refusal leaves the device usable.
  const auto unlimited = covenant_test::open_device();
  CHECK_CODE(cov_device_allocate(unlimited.get(), uint64_t{1} << 50, &memory), COV_OUT_OF_MEMORY);
  CHECK_OK(cov_device_allocate(unlimited.get(), 4096, &memory));
}

void test_arena() {
  using namespace covenant::cuda;
  Device device(0, 64 << 20);
  device.activate();
  for (int call = 0; call < 4; ++call) {
    const Arena::Scope scope(device.scratch());
    char* const a = device.scratch().take<char>(3);
    float* const b = device.scratch().take<float>(700001);
    CHECK(a != nullptr && reinterpret_cast<uintptr_t>(b) % 256 == 0);
    {
      const Arena::Scope inner(device.scratch());
      CHECK(device.scratch().take<double>(400000) != nullptr);
    }
    double* const again = device.scratch().take<double>(400000);
    device.fill_zero(again, 8 * 400000);
    device.finish();
  }
  const uint64_t steady = device.peak_bytes();
  {
    const Arena::Scope scope(device.scratch());
    device.scratch().take<float>(700001);
    device.scratch().take<double>(400000);
  }
  CHECK(device.peak_bytes() == steady);
  const cov_status status = guard([&] {
    const Arena::Scope scope(device.scratch());
    device.scratch().take<char>(80 << 20);
  });
  CHECK(status.code == COV_MEMORY_LIMIT);
  device.scratch().shrink();
  CHECK(device.bytes() == 0);
}

}  // namespace

int main() {
  if (!covenant_test::have_device()) return covenant_test::kSkipped;
  test_report();
  test_round_trip();
  test_limits();
  test_arena();
  TEST_MAIN_END("cuda runtime");
}
