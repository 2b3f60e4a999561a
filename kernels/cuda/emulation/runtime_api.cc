// The CUDA runtime of the emulation: one device whose memory is the host's.
#include "emulation/emulation.h"

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>

struct covenant_emulated_event {
  std::chrono::steady_clock::time_point at;
};

namespace {

constexpr size_t kDefaultBytes = size_t{8} << 30;

std::mutex lock;
std::map<void*, size_t> blocks;
size_t used = 0;

size_t total_bytes() {
  const char* const wanted = std::getenv("COVENANT_EMULATION_MEMORY_BYTES");
  return wanted == nullptr ? kDefaultBytes : std::strtoull(wanted, nullptr, 10);
}

// Memory of a GPU holds whatever was there before.
void* noise(size_t bytes) {
  void* const pointer = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  if (pointer != nullptr) std::memset(pointer, 0xcd, bytes);
  return pointer;
}

}  // namespace

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    default:
      return "invalid argument";
  }
}

cudaError_t cudaGetLastError() { return cudaSuccess; }

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int index) { return index == 0 ? cudaSuccess : cudaErrorInvalidDevice; }

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int index) {
  if (index != 0) return cudaErrorInvalidDevice;
  *properties = {};
  std::snprintf(properties->name, sizeof properties->name, "CUDA emulated on the CPU");
  properties->totalGlobalMem = total_bytes();
  properties->multiProcessorCount = 2;
  return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  const std::lock_guard<std::mutex> guard(lock);
  *total = total_bytes();
  *free = *total > used ? *total - used : 0;
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** pointer, size_t bytes) {
  const std::lock_guard<std::mutex> guard(lock);
  *pointer = nullptr;
  if (bytes == 0) return cudaSuccess;
  if (bytes > total_bytes() || used > total_bytes() - bytes) return cudaErrorMemoryAllocation;
  *pointer = noise(bytes);
  if (*pointer == nullptr) return cudaErrorMemoryAllocation;
  blocks[*pointer] = bytes;
  used += bytes;
  return cudaSuccess;
}

cudaError_t cudaFree(void* pointer) {
  if (pointer == nullptr) return cudaSuccess;
  const std::lock_guard<std::mutex> guard(lock);
  const auto found = blocks.find(pointer);
  if (found == blocks.end()) return cudaErrorInvalidValue;
  used -= found->second;
  blocks.erase(found);
  std::free(pointer);
  return cudaSuccess;
}

cudaError_t cudaMallocHost(void** pointer, size_t bytes) {
  *pointer = bytes == 0 ? nullptr : noise(bytes);
  return bytes > 0 && *pointer == nullptr ? cudaErrorMemoryAllocation : cudaSuccess;
}

cudaError_t cudaFreeHost(void* pointer) {
  std::free(pointer);
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind,
                            cudaStream_t) {
  if (bytes > 0) std::memmove(to, from, bytes);
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t) {
  if (bytes > 0) std::memset(to, value, bytes);
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = nullptr;
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }

cudaError_t cudaEventCreate(cudaEvent_t* event) {
  *event = new (std::nothrow) covenant_emulated_event;
  return *event == nullptr ? cudaErrorMemoryAllocation : cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t) {
  event->at = std::chrono::steady_clock::now();
  return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t) { return cudaSuccess; }
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  *milliseconds = std::chrono::duration<float, std::milli>(end->at - start->at).count();
  return cudaSuccess;
}
