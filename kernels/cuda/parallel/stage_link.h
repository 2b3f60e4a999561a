// Rows of generation from one device of a replica to another, by copies between them.
#pragma once

#include "engine/stages.cuh"
#include "parallel/peer.h"

namespace covenant::cuda {

class PeerLink final : public StageLink {
 public:
  // The devices must outlive it.
  explicit PeerLink(std::vector<Device*> devices);
  void carry(size_t from, const float* source, size_t to, float* target, uint64_t count) override;

 private:
  std::vector<Device*> devices_;
  std::vector<Event> computed_;  // by the device that sends
};

}  // namespace covenant::cuda
