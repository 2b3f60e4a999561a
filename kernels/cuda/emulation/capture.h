// Captures of streams of the emulation: what a stream records in place of running it. All is called with the
// runtime's lock held (streams.h).
#pragma once

#include <functional>
#include <memory>
#include <thread>
#include <vector>

namespace covenant::emulation {

// From whom a capture withholds what no stream sees: allocations, waiting for an event.
enum class Withheld { kNobody, kOwnThread, kAllThreads };

struct Capture {
  std::vector<std::function<bool()>> nodes;  // work with its arguments as they were when it was recorded
  std::thread::id thread;
  Withheld withheld;
  bool valid = true;
};

// By the calling thread.
std::unique_ptr<Capture> begin_capture(Withheld withheld);
// False when the capture has failed before.
bool record(Capture& capture, std::function<bool()> work);
void forget(std::unique_ptr<Capture>& capture);
// False when a capture under way forbids the calling thread to do what no stream sees; the capture has failed then.
bool may_act_outside();

}  // namespace covenant::emulation
