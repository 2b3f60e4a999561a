#include "runtime/graph.h"

#include <algorithm>

#include "runtime/platform.h"

namespace covenant::cuda {
namespace {

void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  (void)cudaGetLastError();
  raise(error == cudaErrorMemoryAllocation ? COV_OUT_OF_MEMORY : COV_UNSUPPORTED, "%s: %s", what,
        cudaGetErrorString(error));
}

cudaStream_t stream_of(const Device& device) {
  return static_cast<cudaStream_t>(device.stream().handle);
}

// A capture under way; one that is not ended is given up.
class Capture {
 public:
  explicit Capture(const Device& device) : stream_(stream_of(device)) {
    // Other threads go on allocating for their own devices meanwhile.
    check(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "beginning a capture");
  }
  ~Capture() {
    if (open_) (void)cudaStreamEndCapture(stream_, &graph_);
    if (graph_ != nullptr) (void)cudaGraphDestroy(graph_);
    (void)cudaGetLastError();  // of what was refused
  }
  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;

  cudaGraph_t end() {
    open_ = false;
    check(cudaStreamEndCapture(stream_, &graph_), "ending a capture");
    return graph_;
  }

 private:
  cudaStream_t stream_;
  cudaGraph_t graph_ = nullptr;
  bool open_ = true;
};

}  // namespace

Graph::~Graph() {
  if (exec_ != nullptr) (void)cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(exec_));
}

Graph Graph::capture(Device& device, const std::function<void()>& queue) {
  Capture capture(device);
  queue();
  cudaGraph_t const recorded = capture.end();
  size_t nodes = 0;
  check(cudaGraphGetNodes(recorded, nullptr, &nodes), "counting the nodes of a graph");
  Graph graph;
  cudaGraphExec_t exec = nullptr;
  check(cudaGraphInstantiate(&exec, recorded, 0), "instantiating a graph");
  graph.exec_ = exec;
  graph.nodes_ = nodes;
  // Here, where a lack of memory can still be answered with plain launches.
  check(cudaGraphUpload(exec, stream_of(device)), "bringing a graph to the device");
  return graph;
}

void Graph::launch(Device& device) const {
  const cudaError_t error = cudaGraphLaunch(static_cast<cudaGraphExec_t>(exec_), stream_of(device));
  if (error == cudaSuccess) return;
  (void)cudaGetLastError();
  raise(COV_INTERNAL, "launching a graph: %s", cudaGetErrorString(error));
}

void GraphCache::run(const Key& key, const std::function<void()>& queue) {
  if (refused_) return run_plain(queue);
  Entry* const entry = find(key);
  if (entry == nullptr) {
    run_plain(queue);
    return add(key);
  }
  if (!entry->graph && !capture(*entry, queue)) return run_plain(queue);
  entry->graph.launch(device_);
  ++counts_.launched;
}

void GraphCache::run_plain(const std::function<void()>& queue) {
  queue();
  ++counts_.plain;
}

GraphCache::Entry* GraphCache::find(const Key& key) {
  const auto found = std::find_if(entries_.begin(), entries_.end(),
                                  [&](const Entry& entry) { return entry.key == key; });
  if (found == entries_.end()) return nullptr;
  found->used = ++clock_;
  return &*found;
}

void GraphCache::add(const Key& key) {
  if (entries_.size() < kEntriesMax) {
    entries_.push_back({key, ++clock_, {}});
    return;
  }
  Entry& oldest = *std::min_element(entries_.begin(), entries_.end(), [](const Entry& a, const Entry& b) {
    return a.used < b.used;
  });
  oldest = {key, ++clock_, {}};
}

bool GraphCache::capture(Entry& entry, const std::function<void()>& queue) {
  try {
    entry.graph = Graph::capture(device_, queue);
  } catch (const Failure& failure) {
    counts_.refusal = failure.status;
    refused_ = true;
    return false;
  }
  ++counts_.captured;
  counts_.nodes_max = std::max(counts_.nodes_max, entry.graph.nodes());
  return true;
}

}  // namespace covenant::cuda
