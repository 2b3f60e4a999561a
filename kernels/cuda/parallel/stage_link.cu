#include "parallel/stage_link.h"

namespace covenant::cuda {

PeerLink::PeerLink(std::vector<Device*> devices) : devices_(std::move(devices)) {
  for (const Device* device : devices_) {
    device->activate();
    computed_.emplace_back();
    for (const Device* peer : devices_)
      if (device != peer) (void)connect(*device, *peer);
  }
}

void PeerLink::carry(size_t from, const float* source, size_t to, float* target, uint64_t count) {
  devices_[from]->activate();
  computed_[from].record(devices_[from]->stream());
  devices_[to]->activate();
  computed_[from].wait(devices_[to]->stream());
  copy_peer(devices_[to]->stream(), *devices_[to], target, *devices_[from], source, count * sizeof(float));
}

}  // namespace covenant::cuda
