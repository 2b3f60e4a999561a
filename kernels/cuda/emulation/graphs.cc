// Graphs of the emulation: what a capture has recorded, and its launches.
#include <cstdlib>
#include <memory>
#include <mutex>
#include <new>
#include <string_view>

#include "emulation/emulation.h"
#include "emulation/streams.h"

using namespace covenant::emulation;

struct covenant_emulated_graph {
  std::vector<std::function<bool()>> nodes;
};

struct covenant_emulated_graph_exec {
  std::vector<std::function<bool()>> nodes;
};

namespace {

using Lock = std::lock_guard<std::recursive_mutex>;

// COVENANT_EMULATION_CAPTURE_FAULT names the call that fails: begin, end, instantiate or upload.
bool faulty(std::string_view call) {
  const char* const wanted = std::getenv("COVENANT_EMULATION_CAPTURE_FAULT");
  return wanted != nullptr && call == wanted;
}

Withheld withheld_by(cudaStreamCaptureMode mode) {
  if (mode == cudaStreamCaptureModeRelaxed) return Withheld::kNobody;
  return mode == cudaStreamCaptureModeThreadLocal ? Withheld::kOwnThread : Withheld::kAllThreads;
}

}  // namespace

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  const Lock guard(runtime_lock());
  if (stream == nullptr || faulty("begin")) return cudaErrorStreamCaptureUnsupported;
  if (stream->capture != nullptr) return cudaErrorIllegalState;
  stream->capture = begin_capture(withheld_by(mode));
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  const Lock guard(runtime_lock());
  *graph = nullptr;
  if (stream == nullptr || stream->capture == nullptr) return cudaErrorIllegalState;
  Capture& capture = *stream->capture;
  if (capture.withheld != Withheld::kNobody && capture.thread != std::this_thread::get_id())
    return cudaErrorStreamCaptureWrongThread;
  cudaError_t result = faulty("end") ? cudaErrorMemoryAllocation : cudaSuccess;
  if (!capture.valid) result = cudaErrorStreamCaptureInvalidated;
  if (result == cudaSuccess) {
    *graph = new (std::nothrow) covenant_emulated_graph{std::move(capture.nodes)};
    if (*graph == nullptr) result = cudaErrorMemoryAllocation;
  }
  forget(stream->capture);
  return result;
}

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t*, size_t* count) {
  *count = graph->nodes.size();
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  *exec = nullptr;
  if (faulty("instantiate")) return cudaErrorMemoryAllocation;
  *exec = new (std::nothrow) covenant_emulated_graph_exec{graph->nodes};
  return *exec == nullptr ? cudaErrorMemoryAllocation : cudaSuccess;
}

cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t) {
  return faulty("upload") ? cudaErrorMemoryAllocation : cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  const Lock guard(runtime_lock());
  if (exec == nullptr || stream == nullptr) return cudaErrorInvalidValue;
  if (stream->capture != nullptr) {  // it would become a child graph
    stream->capture->valid = false;
    return cudaErrorStreamCaptureUnsupported;
  }
  if (launch_fails()) return cudaErrorLaunchFailure;
  for (const std::function<bool()>& node : exec->nodes) queue_work(stream, node);
  return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  delete exec;  // what was launched has copies of its nodes
  return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
