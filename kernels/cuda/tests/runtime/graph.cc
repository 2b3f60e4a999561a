// Capture: what a graph keeps and what it reads anew, what a capture does not take, and the bound of a cache.
// The emulation and a GPU are held to the same rules.
#include "graph.h"

#include <functional>
#include <new>
#include <thread>
#include <vector>

#include "device_test.h"
#include "runtime/graph.h"

namespace {

using namespace covenant::cuda;

bool emulated() {
  cov_device_info info{};
  CHECK_OK(cov_device_info_at(0, &info));
  return info.compute_capability == 0;
}

// A sum on the device, and a number that comes to it from page-locked memory.
class Sum {
 public:
  explicit Sum(Device& device) : device_(device), memory_(device, 2), number(reserve()) {
    device.fill_zero(memory_.data(), memory_.bytes());
    *number = 0;
  }
  void add(int32_t argument) {
    device_.upload(memory_.data(), number, sizeof(int32_t));
    add_numbers(device_, argument, memory_.data(), memory_.data() + 1);
  }
  // What was added since the last time.
  int32_t taken() {
    int32_t value = 0;
    device_.download(&value, memory_.data() + 1, sizeof value);
    device_.finish();
    const int32_t before = before_;
    before_ = value;
    return value - before;
  }

 private:
  int32_t* reserve() { return static_cast<int32_t*>(pinned_.reserve(sizeof(int32_t))); }
  Device& device_;
  PinnedBuffer pinned_;
  Buffer<int32_t> memory_;
  int32_t before_ = 0;

 public:
  int32_t* const number;
};

void replays(Device& device) {
  Sum sum(device);
  int32_t argument = 5;
  *sum.number = 100;
  const Graph graph = Graph::capture(device, [&] { sum.add(argument); });
  CHECK(graph && graph.nodes() == 2);
  CHECK(sum.taken() == 0);
  graph.launch(device);
  CHECK(sum.taken() == 105);
  // The argument is that of the capture, the number that of the launch.
  argument = 7;
  *sum.number = 200;
  graph.launch(device);
  CHECK(sum.taken() == 205);
  graph.launch(device);
  sum.add(argument);
  CHECK(sum.taken() == 205 + 207);
  const Graph empty = Graph::capture(device, [] {});
  CHECK(empty && empty.nodes() == 0);
  empty.launch(device);
  CHECK(sum.taken() == 0);
}

void refuses(Device& device) {
  Sum sum(device);
  std::vector<int32_t> pageable(64);
  PinnedBuffer pinned;
  Buffer<int32_t> memory(device, 64);
  std::vector<std::function<void()>> refused = {
      [&] { device.finish(); },
      [&] { (void)device.allocate(1 << 20); },
      [&] { (void)pinned.reserve(1 << 20); },
      [&] { device.download(pageable.data(), memory.data(), 4); device.finish(); },
  };
  // CUDA records where the numbers are and reads them at each launch.
  if (emulated()) {
    refused.push_back([&] { device.upload(memory.data(), pageable.data(), 4); });
    refused.push_back([&] { device.download(pageable.data(), memory.data(), 4); });
  }
  const uint64_t bytes = device.bytes();
  for (const std::function<void()>& one : refused) {
    const cov_status status = guard([&] {
      (void)Graph::capture(device, [&] {
        sum.add(1);
        one();
        sum.add(2);
      });
    });
    CHECK(status.code != COV_OK);
    CHECK(device.bytes() == bytes);
    CHECK(sum.taken() == 0);  // and the stream takes work again
    // What was refused does no harm when the caller takes no notice of it.
    const cov_status silent = guard([&] {
      (void)Graph::capture(device, [&] { (void)guard(one); sum.add(1); });
    });
    CHECK(silent.code != COV_OK);
    CHECK(sum.taken() == 0);
    Graph::capture(device, [&] { sum.add(3); }).launch(device);
    CHECK(sum.taken() == 3);
  }
  // A capture within a capture is refused by itself, and the outer one goes on.
  const Graph outer = Graph::capture(device, [&] {
    CHECK(guard([&] { (void)Graph::capture(device, [] {}); }).code == COV_UNSUPPORTED);
    sum.add(5);
  });
  outer.launch(device);
  CHECK(sum.taken() == 5);
  // A fault of the caller's own ends the capture as well.
  CHECK(guard([&] { (void)Graph::capture(device, [] { throw std::bad_alloc(); }); }).code ==
        COV_OUT_OF_MEMORY);
  sum.add(4);
  CHECK(sum.taken() == 4);
}

// Another device object allocates from another thread during a capture.
void other_threads(Device& device) {
  Sum sum(device);
  const Graph graph = Graph::capture(device, [&] {
    std::thread([] {
      Device other(0, 0);
      const Buffer<char> memory(other, 1 << 20);
      other.fill_zero(memory.data(), memory.bytes());
      other.finish();
    }).join();
    sum.add(6);
  });
  graph.launch(device);
  CHECK(sum.taken() == 6);
}

void caches(Device& device) {
  Sum sum(device);
  GraphCounts counts;
  GraphCache cache(device, counts);
  constexpr auto kMax = static_cast<int64_t>(GraphCache::kEntriesMax);
  const auto run = [&](int64_t key) {
    cache.run({key, -key}, [&] { sum.add(static_cast<int32_t>(key)); });
    CHECK(sum.taken() == key);
  };
  for (int round = 0; round < 3; ++round)
    for (int64_t key = 1; key <= kMax; ++key) run(key);
  CHECK(counts.plain == GraphCache::kEntriesMax);
  CHECK(counts.captured == GraphCache::kEntriesMax && counts.launched == 2 * GraphCache::kEntriesMax);
  CHECK(counts.nodes_max == 2);
  run(1);
  run(kMax + 1);  // in the place of 2, which has not been used for longest
  run(kMax + 1);
  CHECK(counts.captured == GraphCache::kEntriesMax + 1);
  run(1);
  run(3);
  CHECK(counts.captured == GraphCache::kEntriesMax + 1);
  const uint64_t plain = counts.plain;
  run(2);
  CHECK(counts.plain == plain + 1 && counts.captured == GraphCache::kEntriesMax + 1);
  CHECK(counts.refusal.code == COV_OK);
}

void falls_back(Device& device) {
  Sum sum(device);
  GraphCounts counts;
  GraphCache cache(device, counts);
  for (int i = 0; i < 4; ++i) {
    cache.run({1, 1}, [&] {
      const Buffer<char> memory(device, 16);
      sum.add(8);
    });
    CHECK(sum.taken() == 8);
  }
  CHECK(counts.captured == 0 && counts.launched == 0 && counts.plain == 4);
  CHECK(counts.refusal.code != COV_OK && counts.refusal.message[0] != '\0');
}

}  // namespace

int main() {
  if (!covenant_test::have_device()) return covenant_test::kSkipped;
  Device device(0, 0);
  device.activate();
  replays(device);
  refuses(device);
  other_threads(device);
  caches(device);
  falls_back(device);
  TEST_MAIN_END("cuda graph");
}
