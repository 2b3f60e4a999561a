// Points of streams.
#pragma once

#include <utility>

#include "runtime/device.h"

namespace covenant::cuda {

// A point of a stream that the host and other streams, of any device, can wait for. Belongs to the device that is
// current when it is made.
class Event {
 public:
  Event();
  ~Event();
  Event(Event&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  // Everything queued so far on a stream of its device.
  void record(Stream stream);
  // What is queued on `stream` from here on runs after that; at once if it was never recorded.
  void wait(Stream stream) const;
  // The host waits; raises what went wrong until then.
  void finish() const;

 private:
  void* handle_ = nullptr;
};

}  // namespace covenant::cuda
