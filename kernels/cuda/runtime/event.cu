#include "runtime/event.h"

#include "runtime/platform.h"

namespace covenant::cuda {
namespace {

void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  (void)cudaGetLastError();
  raise(COV_INTERNAL, "%s: %s", what, cudaGetErrorString(error));
}

cudaStream_t native(Stream stream) { return static_cast<cudaStream_t>(stream.handle); }

}  // namespace

Event::Event() {
  cudaEvent_t event = nullptr;
  check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "creating an event");
  handle_ = event;
}

Event::~Event() {
  if (handle_ != nullptr) (void)cudaEventDestroy(static_cast<cudaEvent_t>(handle_));
}

void Event::record(Stream stream) {
  check(cudaEventRecord(static_cast<cudaEvent_t>(handle_), native(stream)), "recording an event");
}

void Event::wait(Stream stream) const {
  check(cudaStreamWaitEvent(native(stream), static_cast<cudaEvent_t>(handle_), 0),
        "waiting for an event");
}

void Event::finish() const {
  check(cudaEventSynchronize(static_cast<cudaEvent_t>(handle_)), "work on the device");
}

}  // namespace covenant::cuda
