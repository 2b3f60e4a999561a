// The CUDA runtime of the emulation: devices whose memory is the host's.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <new>
#include <string>
#include <vector>

#include "emulation/emulation.h"
#include "emulation/capture.h"
#include "emulation/memory.h"
#include "emulation/streams.h"

using namespace covenant::emulation;

namespace {

using Lock = std::lock_guard<std::recursive_mutex>;

thread_local int current = 0;
thread_local cudaError_t last_error = cudaSuccess;
std::map<const char*, size_t> pinned;  // start and length

bool is_pinned(const void* host, size_t bytes) {
  const auto* const at = static_cast<const char*>(host);
  auto next = pinned.upper_bound(at);
  if (next == pinned.begin()) return false;
  const auto& [start, length] = *--next;
  const auto shift = static_cast<size_t>(at - start);
  return shift <= length && bytes <= length - shift;
}

bool known(int device) { return device >= 0 && device < device_count(); }

int device_of(cudaStream_t stream) { return stream == nullptr ? current : stream->device; }

bool capturing(cudaStream_t stream) { return stream != nullptr && stream->capture != nullptr; }

// What a stream that captures does not take: it ends the capture, and is itself refused.
cudaError_t refuse(cudaStream_t stream) {
  stream->capture->valid = false;
  return cudaErrorStreamCaptureUnsupported;
}

// The same for what no stream sees (allocations, waiting for an event).
cudaError_t check_unsafe() {
  return may_act_outside() ? cudaSuccess : cudaErrorStreamCaptureUnsupported;
}

// Work that touches memory of `device` only, or of all (-1).
cudaError_t queue(cudaStream_t stream, int device, std::function<void()> work) {
  std::function<bool()> entry = [device, work = std::move(work)] {
    open_memory(device);
    work();
    return true;
  };
  if (capturing(stream))
    return record(*stream->capture, std::move(entry)) ? cudaSuccess : cudaErrorStreamCaptureInvalidated;
  if (stream == nullptr)
    entry();
  else
    queue_work(stream, std::move(entry));
  return cudaSuccess;
}

// Whether a launch on `device` is to fail now (COVENANT_EMULATION_FAULT).
bool faulty(int device) {
  static std::string known_fault;
  static long left = 0;
  const char* const fault = std::getenv("COVENANT_EMULATION_FAULT");
  if (fault == nullptr || *fault == '\0') {
    known_fault.clear();
    return false;
  }
  char* rest = nullptr;
  const long wanted = std::strtol(fault, &rest, 10);
  if (known_fault != fault) {
    known_fault = fault;
    left = *rest == ':' ? std::strtol(rest + 1, nullptr, 10) : 0;
  }
  return wanted == device && left-- <= 0;
}

}  // namespace

namespace covenant::emulation {

void launch_on(void* handle, std::function<void()> work) {
  const Lock guard(runtime_lock());
  auto* const stream = static_cast<cudaStream_t>(handle);
  if (device_of(stream) != current) {
    last_error = cudaErrorInvalidResourceHandle;
  } else if (launch_fails()) {
    last_error = cudaErrorLaunchFailure;
  } else if (const cudaError_t error = queue(stream, current, std::move(work)); error != cudaSuccess) {
    last_error = error;
  }
}

bool launch_fails() { return faulty(current); }

}  // namespace covenant::emulation

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorInvalidDevice:
      return "invalid device ordinal";
    case cudaErrorInvalidResourceHandle:
      return "invalid resource handle";
    case cudaErrorIllegalState:
      return "the operation cannot be performed in the present state";
    case cudaErrorLaunchFailure:
      return "unspecified launch failure";
    case cudaErrorStreamCaptureUnsupported:
      return "operation not permitted when stream is capturing";
    case cudaErrorStreamCaptureInvalidated:
      return "operation failed due to a previous error during capture";
    case cudaErrorStreamCaptureWrongThread:
      return "attempt to terminate a thread-local capture sequence from another thread";
    default:
      return "invalid argument";
  }
}

cudaError_t cudaGetLastError() {
  const cudaError_t error = last_error;
  last_error = cudaSuccess;
  return error;
}

cudaError_t cudaGetDeviceCount(int* count) {
  *count = device_count();
  return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int index) {
  if (!known(index)) return cudaErrorInvalidDevice;
  current = index;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int index) {
  if (!known(index)) return cudaErrorInvalidDevice;
  *properties = {};
  std::snprintf(properties->name, sizeof properties->name, "CUDA emulated on the CPU");
  properties->totalGlobalMem = total_bytes();
  properties->multiProcessorCount = 2;
  return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  const Lock guard(runtime_lock());
  const size_t used = used_bytes(current);
  *total = total_bytes();
  *free = *total > used ? *total - used : 0;
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** pointer, size_t bytes) {
  const Lock guard(runtime_lock());
  if (const cudaError_t error = check_unsafe(); error != cudaSuccess) return error;
  *pointer = bytes == 0 ? nullptr : allocate(current, bytes);
  return bytes > 0 && *pointer == nullptr ? cudaErrorMemoryAllocation : cudaSuccess;
}

cudaError_t cudaFree(void* pointer) {
  if (pointer == nullptr) return cudaSuccess;
  const Lock guard(runtime_lock());
  if (const cudaError_t error = check_unsafe(); error != cudaSuccess) return error;
  const int device = owner(pointer, 0);
  if (device < 0) return cudaErrorInvalidValue;
  run_device(device);  // as on a GPU, freeing waits for the device
  int freed = 0;
  return release(pointer, &freed) ? cudaSuccess : cudaErrorInvalidValue;
}

cudaError_t cudaMallocHost(void** pointer, size_t bytes) {
  const Lock guard(runtime_lock());
  if (const cudaError_t error = check_unsafe(); error != cudaSuccess) return error;
  *pointer = bytes == 0 ? nullptr : std::malloc(bytes);
  if (*pointer == nullptr) return bytes > 0 ? cudaErrorMemoryAllocation : cudaSuccess;
  std::memset(*pointer, 0xcd, bytes);
  pinned[static_cast<const char*>(*pointer)] = bytes;
  return cudaSuccess;
}

cudaError_t cudaFreeHost(void* pointer) {
  if (pointer == nullptr) return cudaSuccess;
  const Lock guard(runtime_lock());
  if (const cudaError_t error = check_unsafe(); error != cudaSuccess) return error;
  pinned.erase(static_cast<const char*>(pointer));
  std::free(pointer);
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  if (bytes == 0) return cudaSuccess;
  const Lock guard(runtime_lock());
  const int device = device_of(stream);
  if (kind != cudaMemcpyDeviceToHost && owner(to, bytes) != device) return cudaErrorInvalidValue;
  if (kind != cudaMemcpyHostToDevice && owner(from, bytes) != device) return cudaErrorInvalidValue;
  const void* const host = kind == cudaMemcpyHostToDevice ? from : to;
  const bool pageable = kind != cudaMemcpyDeviceToDevice && !is_pinned(host, bytes);
  if (pageable && capturing(stream)) return refuse(stream);
  if (kind == cudaMemcpyHostToDevice && pageable) {
    // Pageable memory is read before the call returns.
    const auto* const first = static_cast<const char*>(from);
    return queue(stream, device, [to, bytes, data = std::vector<char>(first, first + bytes)] {
      std::memcpy(to, data.data(), bytes);
    });
  }
  const cudaError_t error = queue(stream, device, [=] { std::memmove(to, from, bytes); });
  // Pageable memory has been written when the call returns.
  if (pageable && stream != nullptr) run_stream(stream);
  return error;
}

cudaError_t cudaMemcpyPeerAsync(void* to, int to_device, const void* from, int from_device,
                                size_t bytes, cudaStream_t stream) {
  if (!known(to_device) || !known(from_device)) return cudaErrorInvalidDevice;
  if (bytes == 0) return cudaSuccess;
  const Lock guard(runtime_lock());
  if (owner(to, bytes) != to_device || owner(from, bytes) != from_device) return cudaErrorInvalidValue;
  return queue(stream, -1, [=] { std::memmove(to, from, bytes); });
}

cudaError_t cudaDeviceCanAccessPeer(int* can, int device, int peer) {
  if (!known(device) || !known(peer)) return cudaErrorInvalidDevice;
  *can = device != peer;
  return cudaSuccess;
}

cudaError_t cudaDeviceEnablePeerAccess(int peer, unsigned) {
  return known(peer) && peer != current ? cudaSuccess : cudaErrorInvalidDevice;
}

cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
  if (bytes == 0) return cudaSuccess;
  const Lock guard(runtime_lock());
  if (owner(to, bytes) != device_of(stream)) return cudaErrorInvalidValue;
  return queue(stream, device_of(stream), [=] { std::memset(to, value, bytes); });
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  const Lock guard(runtime_lock());
  *stream = new (std::nothrow) covenant_emulated_stream;
  if (*stream == nullptr) return cudaErrorMemoryAllocation;
  (*stream)->device = current;
  add_stream(*stream);
  return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  const Lock guard(runtime_lock());
  if (stream != nullptr) remove_stream(stream);
  delete stream;
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  const Lock guard(runtime_lock());
  if (capturing(stream)) return refuse(stream);
  if (stream != nullptr) run_stream(stream);
  return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  const Lock guard(runtime_lock());
  if (capturing(stream)) return refuse(stream);
  const auto wait = [state = event->state, wanted = event->state->recorded] {
    return state->reached >= wanted;
  };
  if (stream != nullptr) queue_work(stream, wait);
  return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t* event) {
  *event = new (std::nothrow) covenant_emulated_event;
  return *event == nullptr ? cudaErrorMemoryAllocation : cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) { return cudaEventCreate(event); }

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  const Lock guard(runtime_lock());
  if (capturing(stream)) return refuse(stream);
  return queue(stream, device_of(stream), [state = event->state, number = ++event->state->recorded] {
    state->reached = number;
    state->at = std::chrono::steady_clock::now();
  });
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  const Lock guard(runtime_lock());
  if (const cudaError_t error = check_unsafe(); error != cudaSuccess) return error;
  if (event->state->reached == event->state->recorded) return cudaSuccess;
  for (int device = 0; device < device_count(); ++device) run_device(device);
  return cudaSuccess;
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  *milliseconds = std::chrono::duration<float, std::milli>(end->state->at - start->state->at).count();
  return cudaSuccess;
}
