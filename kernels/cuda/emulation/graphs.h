// Stream capture of the emulation: what a stream records in place of running it.
#pragma once

#include <functional>
#include <thread>
#include <vector>

#include "emulation/emulation.h"

// Work with its arguments as they were when it was recorded.
struct covenant_emulated_graph {
  std::vector<std::function<bool()>> nodes;
};

struct covenant_emulated_capture {
  covenant_emulated_graph graph;
  std::thread::id thread;
  cudaStreamCaptureMode mode;
  bool valid = true;
};

namespace covenant::emulation {

// The functions below are called with the runtime's lock held.

// Adds to the capture under way on `stream`, which there must be.
cudaError_t record(covenant_emulated_stream* stream, std::function<bool()> work);
// What a stream that captures does not take: it ends the capture, and is itself refused.
cudaError_t refuse(covenant_emulated_stream* stream);
// The same for what no stream sees (allocations, waiting for an event): success, unless a capture forbids the
// calling thread to do it.
cudaError_t check_unsafe();
void forget_capture(covenant_emulated_stream* stream);

}  // namespace covenant::emulation
