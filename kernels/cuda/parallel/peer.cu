#include "parallel/peer.h"

#include "runtime/platform.h"

namespace covenant::cuda {
namespace {

void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  (void)cudaGetLastError();
  raise(COV_INTERNAL, "%s: %s", what, cudaGetErrorString(error));
}

cudaStream_t native(Stream stream) { return static_cast<cudaStream_t>(stream.handle); }

}  // namespace

SideStream::SideStream(const Device& device) {
  device.activate();
  cudaStream_t stream = nullptr;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "creating a stream");
  stream_.handle = stream;
}

SideStream::~SideStream() {
  (void)cudaStreamSynchronize(native(stream_));
  (void)cudaStreamDestroy(native(stream_));
}

void SideStream::finish() const {
  check(cudaStreamSynchronize(native(stream_)), "copies between devices");
}

bool connect(const Device& device, const Device& peer) {
  int can = 0;
  check(cudaDeviceCanAccessPeer(&can, device.index(), peer.index()), "access between devices");
  if (can == 0) return false;
  device.activate();
  const cudaError_t error = cudaDeviceEnablePeerAccess(peer.index(), 0);
  (void)cudaGetLastError();
  return error == cudaSuccess || error == cudaErrorPeerAccessAlreadyEnabled;
}

void copy_peer(Stream stream, const Device& to_device, void* to, const Device& from_device,
               const void* from, uint64_t bytes) {
  if (bytes == 0) return;
  check(cudaMemcpyPeerAsync(to, to_device.index(), from, from_device.index(), bytes, native(stream)),
        "copying between devices");
}

}  // namespace covenant::cuda
