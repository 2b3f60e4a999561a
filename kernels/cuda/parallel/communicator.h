// How the devices of a group exchange values. Calls come from one thread and only queue work; faults of
// the work itself surface at finish() of a stream.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "parallel/peer.h"
#include "runtime/device.h"

namespace covenant::cuda {

// A device with the stream for its transfers.
struct Member {
  Device* device;
  const SideStream* side;
};

class Communicator {
 public:
  virtual ~Communicator() = default;
  // buffers[i] of member i becomes the sum over all members, on the members' own streams.
  virtual void all_reduce(const std::vector<float*>& buffers, uint64_t count) = 0;
  // Copies once the side streams of both members have come here; both go on after it.
  virtual void transfer(size_t from, const void* source, size_t to, void* target,
                        uint64_t bytes) = 0;
  // Allocates what all_reduce of up to `count` needs.
  virtual void reserve(uint64_t count) = 0;
};

// Sums in the order of the members, by copies between devices and one kernel: the same bits on every
// member and on every run (tier B: for one number of devices).
std::unique_ptr<Communicator> make_ordered(const std::vector<Member>& members);

// NCCL's collectives, whose order of additions is its own (tier C). Only where it is available.
std::unique_ptr<Communicator> make_nccl(const std::vector<Member>& members);
// The library is looked for once. *report: "NCCL 2.27.3", or why it cannot be used.
bool nccl_available(std::string* report);

}  // namespace covenant::cuda
