// Each member adds up one share of the buffers, in the order of the members, and hands it to all others.
#include <algorithm>

#include "parallel/communicator.h"
#include "runtime/platform.h"

namespace covenant::cuda {
namespace {

constexpr uint64_t kPieceMax = uint64_t{1} << 24;  // floats of one peer that are held at once
constexpr unsigned kThreads = 256;

// Where the members' values of one piece lie, in the order of the sum.
struct Terms {
  static constexpr int kMax = 16;
  const float* at[kMax];
  int count;
};

// to may be one of the terms.
__global__ void sum_kernel(Terms terms, int64_t count, float* to) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= count) return;
  float sum = terms.at[0][i];
  for (int t = 1; t < terms.count; ++t) sum += terms.at[t][i];
  to[i] = sum;
}

class Ordered : public Communicator {
 public:
  explicit Ordered(const std::vector<Member>& members) : members_(members), works_(members.size()) {
    for (const Member& a : members) {
      a.device->activate();
      ready_.emplace_back();
      done_.emplace_back();
      for (const Member& b : members)
        if (a.device != b.device) (void)connect(*a.device, *b.device);
    }
  }

  void reserve(uint64_t count) override {
    const uint64_t piece = std::min(share(count), kPieceMax);
    for (size_t i = 0; i < members_.size(); ++i) {
      if (works_[i].count() >= piece * (members_.size() - 1)) continue;
      members_[i].device->activate();
      members_[i].device->finish();
      works_[i] = Buffer<float>();
      works_[i] = Buffer<float>(*members_[i].device, piece * (members_.size() - 1));
    }
  }

  void all_reduce(const std::vector<float*>& buffers, uint64_t count) override {
    if (members_.size() == 1 || count == 0) return;
    reserve(count);
    for (size_t i = 0; i < members_.size(); ++i) record(ready_[i], i);
    for (size_t i = 0; i < members_.size(); ++i) {
      const uint64_t first = std::min(count, i * share(count));
      reduce(i, buffers, first, std::min(count, first + share(count)));
      record(done_[i], i);
    }
    for (const Member& member : members_) {
      member.device->activate();
      for (const Event& event : done_) event.wait(member.device->stream());
    }
  }

  void transfer(size_t from, const void* source, size_t to, void* target,
                uint64_t bytes) override {
    const Stream sender = members_[from].side->stream(), receiver = members_[to].side->stream();
    members_[from].device->activate();
    ready_[from].record(sender);
    members_[to].device->activate();
    ready_[from].wait(receiver);
    copy_peer(receiver, *members_[to].device, target, *members_[from].device, source, bytes);
    done_[to].record(receiver);
    members_[from].device->activate();
    done_[to].wait(sender);
  }

 private:
  // Multiples of 256 bytes, so that copies and sums start aligned.
  uint64_t share(uint64_t count) const {
    const uint64_t members = members_.size();
    return ((count + members - 1) / members + 63) / 64 * 64;
  }

  void record(Event& event, size_t member) {
    members_[member].device->activate();
    event.record(members_[member].device->stream());
  }

  // Member `self` sums [first, last) of all buffers into its own, and writes it to the others.
  void reduce(size_t self, const std::vector<float*>& buffers, uint64_t first, uint64_t last) {
    const Device& device = *members_[self].device;
    device.activate();
    for (const Event& event : ready_) event.wait(device.stream());
    for (uint64_t at = first; at < last; at += kPieceMax) {
      const uint64_t piece = std::min(kPieceMax, last - at);
      float* work = works_[self].data();
      Terms terms{};
      for (size_t i = 0; i < members_.size(); ++i) {
        terms.at[terms.count++] = i == self ? buffers[i] + at : work;
        if (i == self) continue;
        copy_peer(device.stream(), device, work, *members_[i].device, buffers[i] + at,
                  piece * sizeof(float));
        work += piece;
      }
      COVENANT_LAUNCH(sum_kernel, static_cast<unsigned>((piece + kThreads - 1) / kThreads), kThreads,
                      0, device.stream(), terms, static_cast<int64_t>(piece), buffers[self] + at);
      for (size_t i = 0; i < members_.size(); ++i) {
        if (i != self)
          copy_peer(device.stream(), *members_[i].device, buffers[i] + at, device,
                    buffers[self] + at, piece * sizeof(float));
      }
    }
  }

  std::vector<Member> members_;
  std::vector<Buffer<float>> works_;
  std::vector<Event> ready_, done_;
};

}  // namespace

std::unique_ptr<Communicator> make_ordered(const std::vector<Member>& members) {
  return std::make_unique<Ordered>(members);
}

}  // namespace covenant::cuda
