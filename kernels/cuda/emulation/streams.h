// Streams and events of the emulation.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "emulation/capture.h"

// What an event was last recorded as, and how far that has come.
struct covenant_emulated_event {
  struct State {
    uint64_t recorded = 0, reached = 0;
    std::chrono::steady_clock::time_point at;
  };
  std::shared_ptr<State> state = std::make_shared<State>();
};

struct covenant_emulated_stream {
  int device = 0;
  std::unique_ptr<covenant::emulation::Capture> capture;  // under way
  // False: cannot run yet, it waits for an event.
  std::deque<std::function<bool()>> queue;
};

namespace covenant::emulation {

// Held by every call of the runtime and while work runs.
std::recursive_mutex& runtime_lock();

// Queues `work` (lock held), which no capture sees. In ascending order it runs at once.
void queue_work(covenant_emulated_stream* stream, std::function<bool()> work);
// Queues work on several streams before any of it runs; for what only goes on together (lock not held). One
// stream may be capturing, several may not.
__attribute__((visibility("default"))) void queue_together(
    const std::vector<std::pair<covenant_emulated_stream*, std::function<bool()>>>& works);
// Runs until everything queued on `stream` is done (lock held).
void run_stream(covenant_emulated_stream* stream);
// The same for all streams of a device.
void run_device(int device);
void add_stream(covenant_emulated_stream* stream);
void remove_stream(covenant_emulated_stream* stream);

}  // namespace covenant::emulation
