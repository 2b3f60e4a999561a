// CUDA graphs: what a stream does again and again, recorded once and launched as a whole.
//
// A graph runs the kernels it recorded with the arguments it recorded, so results have the bits of plain
// launches as long as everything that varies is read from memory.
#pragma once

#include <array>
#include <functional>
#include <vector>

#include "runtime/device.h"

namespace covenant::cuda {

class Graph {
 public:
  Graph() = default;
  Graph(Graph&& other) noexcept { *this = std::move(other); }
  Graph& operator=(Graph&& other) noexcept {
    std::swap(exec_, other.exec_);
    std::swap(nodes_, other.nodes_);
    return *this;
  }
  ~Graph();

  // Records what `queue` queues on the device's stream and runs none of it. Failure when CUDA refuses any of
  // it: memory may neither be allocated nor freed, nobody may wait, and host memory must be page-locked.
  // Nothing is recorded then, and the stream is as before.
  static Graph capture(Device& device, const std::function<void()>& queue);

  explicit operator bool() const { return exec_ != nullptr; }
  uint64_t nodes() const { return nodes_; }  // launches, copies and the like
  void launch(Device& device) const;

 private:
  void* exec_ = nullptr;
  uint64_t nodes_ = 0;
};

// What became of work that may run as a graph.
struct GraphCounts {
  uint64_t captured = 0;
  uint64_t launched = 0;  // runs as a graph
  uint64_t plain = 0;     // runs launch by launch
  uint64_t nodes_max = 0;
  cov_status refusal = cov_ok();  // of the last capture that CUDA refused
};

// The graphs of work that comes again and again, by what determines the arguments of its launches. Bounded: of
// more than kEntriesMax the one not used for longest is forgotten.
class GraphCache {
 public:
  using Key = std::array<int64_t, 3>;
  static constexpr size_t kEntriesMax = 16;

  GraphCache(Device& device, GraphCounts& counts) : device_(device), counts_(counts) {}

  // Runs `queue`: at first by itself, so that its kernels are loaded; the second time it is captured. When that
  // is refused everything runs launch by launch from then on.
  void run(const Key& key, const std::function<void()>& queue);
  // Forgets all graphs: what they read has moved.
  void clear() { entries_.clear(); }
  // Runs `queue` by itself.
  void run_plain(const std::function<void()>& queue);

 private:
  struct Entry {
    Key key;
    uint64_t used;
    Graph graph;
  };
  Entry* find(const Key& key);
  void add(const Key& key);
  bool capture(Entry& entry, const std::function<void()>& queue);

  Device& device_;
  GraphCounts& counts_;
  std::vector<Entry> entries_;
  uint64_t clock_ = 0;
  bool refused_ = false;
};

}  // namespace covenant::cuda
