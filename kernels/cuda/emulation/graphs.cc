#include "emulation/graphs.h"

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <new>
#include <string_view>

#include "emulation/streams.h"

using namespace covenant::emulation;

struct covenant_emulated_graph_exec {
  std::vector<std::function<bool()>> nodes;
};

namespace {

using Lock = std::lock_guard<std::recursive_mutex>;

std::vector<covenant_emulated_capture*>& captures() {
  static auto* const all = new std::vector<covenant_emulated_capture*>;
  return *all;
}

// COVENANT_EMULATION_CAPTURE_FAULT names the call that fails: begin, end, instantiate or upload.
bool faulty(std::string_view call) {
  const char* const wanted = std::getenv("COVENANT_EMULATION_CAPTURE_FAULT");
  return wanted != nullptr && call == wanted;
}

}  // namespace

namespace covenant::emulation {

cudaError_t record(covenant_emulated_stream* stream, std::function<bool()> work) {
  if (!stream->capture->valid) return cudaErrorStreamCaptureInvalidated;
  stream->capture->graph.nodes.push_back(std::move(work));
  return cudaSuccess;
}

cudaError_t refuse(covenant_emulated_stream* stream) {
  stream->capture->valid = false;
  return cudaErrorStreamCaptureUnsupported;
}

cudaError_t check_unsafe() {
  cudaError_t result = cudaSuccess;
  for (covenant_emulated_capture* const capture : captures()) {
    const bool own = capture->thread == std::this_thread::get_id();
    if (capture->mode == cudaStreamCaptureModeRelaxed ||
        (!own && capture->mode == cudaStreamCaptureModeThreadLocal))
      continue;
    capture->valid = false;
    result = cudaErrorStreamCaptureUnsupported;
  }
  return result;
}

void forget_capture(covenant_emulated_stream* stream) {
  std::vector<covenant_emulated_capture*>& all = captures();
  all.erase(std::remove(all.begin(), all.end(), stream->capture.get()), all.end());
  stream->capture.reset();
}

}  // namespace covenant::emulation

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  const Lock guard(runtime_lock());
  if (stream == nullptr || faulty("begin")) return cudaErrorStreamCaptureUnsupported;
  if (stream->capture != nullptr) return cudaErrorIllegalState;
  stream->capture = std::make_unique<covenant_emulated_capture>();
  stream->capture->thread = std::this_thread::get_id();
  stream->capture->mode = mode;
  captures().push_back(stream->capture.get());
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  const Lock guard(runtime_lock());
  *graph = nullptr;
  if (stream == nullptr || stream->capture == nullptr) return cudaErrorIllegalState;
  const covenant_emulated_capture& capture = *stream->capture;
  if (capture.mode != cudaStreamCaptureModeRelaxed && capture.thread != std::this_thread::get_id())
    return cudaErrorStreamCaptureWrongThread;
  cudaError_t result = faulty("end") ? cudaErrorMemoryAllocation : cudaSuccess;
  if (!capture.valid) result = cudaErrorStreamCaptureInvalidated;
  if (result == cudaSuccess) {
    *graph = new (std::nothrow) covenant_emulated_graph{std::move(stream->capture->graph)};
    if (*graph == nullptr) result = cudaErrorMemoryAllocation;
  }
  forget_capture(stream);
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
  if (stream->capture != nullptr) return refuse(stream);  // it would become a child graph
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
