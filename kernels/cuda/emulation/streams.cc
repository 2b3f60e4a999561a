#include "emulation/streams.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string_view>

namespace covenant::emulation {
namespace {

using Stream = covenant_emulated_stream;

enum class Order { kAtOnce, kLate, kShuffled };

Order order() {
  static const Order found = [] {
    const char* const wanted = std::getenv("COVENANT_EMULATION_ORDER");
    const std::string_view name = wanted == nullptr ? "" : wanted;
    return name == "reverse" ? Order::kLate : name == "shuffle" ? Order::kShuffled : Order::kAtOnce;
  }();
  return found;
}

std::vector<Stream*>& streams() {
  static auto* const all = new std::vector<Stream*>;
  return *all;
}

// Runs the first entry; false when it has to wait or there is none.
bool run_one(Stream* stream) {
  if (stream->queue.empty()) return false;
  std::function<bool()> work = std::move(stream->queue.front());
  if (!work()) {
    stream->queue.front() = std::move(work);
    return false;
  }
  stream->queue.pop_front();
  return true;
}

size_t random_below(size_t bound) {
  static uint64_t state = 0x9e3779b97f4a7c15ull;
  state = state * 6364136223846793005ull + 1442695040888963407ull;
  return static_cast<size_t>(state >> 33) % bound;
}

// One entry of any stream other than `but`, the youngest stream first or at random.
bool run_another(const Stream* but) {
  const std::vector<Stream*>& all = streams();
  if (all.empty()) return false;
  const size_t first = order() == Order::kShuffled ? random_below(all.size()) : all.size() - 1;
  for (size_t i = 0; i < all.size(); ++i) {
    Stream* const other = all[(first + all.size() - i) % all.size()];
    if (other != but && run_one(other)) return true;
  }
  return false;
}

}  // namespace

std::recursive_mutex& runtime_lock() {
  static auto* const lock = new std::recursive_mutex;
  return *lock;
}

void queue_work(Stream* stream, std::function<bool()> work) {
  stream->queue.push_back(std::move(work));
  if (order() == Order::kAtOnce) run_stream(stream);
}

void queue_together(const std::vector<std::pair<Stream*, std::function<bool()>>>& works) {
  const std::lock_guard<std::recursive_mutex> guard(runtime_lock());
  for (const auto& [stream, work] : works) {
    if (stream->capture == nullptr) {
      stream->queue.push_back(work);
    } else if (works.size() > 1) {
      std::fprintf(stderr, "emulated streams: work of several streams is not captured\n");
      std::abort();
    } else {
      (void)record(*stream->capture, work);  // a capture that has failed says so when it ends
    }
  }
  if (order() != Order::kAtOnce) return;
  for (const auto& entry : works) run_stream(entry.first);
}

void run_stream(Stream* stream) {
  while (!stream->queue.empty()) {
    if (order() == Order::kShuffled && random_below(2) == 0 && run_another(stream)) continue;
    if (run_one(stream) || run_another(stream)) continue;
    std::fprintf(stderr, "emulated streams: each waits for an event that is never reached\n");
    std::abort();
  }
}

void run_device(int device) {
  for (Stream* const stream : std::vector<Stream*>(streams()))
    if (stream->device == device) run_stream(stream);
}

void add_stream(Stream* stream) { streams().push_back(stream); }

void remove_stream(Stream* stream) {
  forget(stream->capture);
  run_stream(stream);
  std::vector<Stream*>& all = streams();
  all.erase(std::remove(all.begin(), all.end(), stream), all.end());
}

}  // namespace covenant::emulation
