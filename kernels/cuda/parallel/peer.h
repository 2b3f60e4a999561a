// Second streams, and copies between devices.
#pragma once

#include "runtime/event.h"

namespace covenant::cuda {

// A second stream of a device, for what runs beside its computing.
class SideStream {
 public:
  explicit SideStream(const Device& device);
  ~SideStream();
  SideStream(const SideStream&) = delete;
  SideStream& operator=(const SideStream&) = delete;
  Stream stream() const { return stream_; }
  // Waits for everything queued; raises what went wrong in it.
  void finish() const;

 private:
  Stream stream_;
};

// Lets `device` read and write memory of `peer` directly where the machine can; else copies go through
// the host. True when they are direct.
bool connect(const Device& device, const Device& peer);

// Queued on `stream`, which is of either device.
void copy_peer(Stream stream, const Device& to_device, void* to, const Device& from_device,
               const void* from, uint64_t bytes);

}  // namespace covenant::cuda
