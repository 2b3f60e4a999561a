#include "runtime/device.h"

#include <algorithm>
#include <cinttypes>
#include <cstdarg>
#include <cstdio>

#include "runtime/platform.h"

namespace covenant::cuda {
namespace {

void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  const cov_code code = error == cudaErrorMemoryAllocation ? COV_OUT_OF_MEMORY : COV_INTERNAL;
  raise(code, "%s: %s", what, cudaGetErrorString(error));
}

cudaStream_t native(Stream stream) { return static_cast<cudaStream_t>(stream.handle); }

constexpr uint64_t kAlignment = 256;
constexpr uint64_t kPartBytesMin = 1 << 20;

}  // namespace

void raise(cov_code code, const char* format, ...) {
  Failure failure{};
  failure.status.code = code;
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(failure.status.message, sizeof failure.status.message, format, arguments);
  va_end(arguments);
  throw failure;
}

void check_launch(const char* kernel) {
  if (const cudaError_t error = cudaGetLastError(); error != cudaSuccess)
    raise(COV_INTERNAL, "launching %s: %s", kernel, cudaGetErrorString(error));
}

Device::Device(int32_t index, uint64_t memory_limit_bytes)
    : index_(index), limit_(memory_limit_bytes), scratch_(std::make_unique<Arena>(*this)) {
  activate();
  cudaDeviceProp properties;
  check(cudaGetDeviceProperties(&properties, index), "properties of the device");
  multiprocessors_ = properties.multiProcessorCount;
  cudaStream_t stream = nullptr;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "creating a stream");
  stream_.handle = stream;
}

Device::~Device() {
  if (cudaSetDevice(index_) != cudaSuccess) return;
  // Nothing can be reported from here.
  (void)cudaStreamSynchronize(native(stream_));
  scratch_.reset();
  for (const Block& block : blocks_) (void)cudaFree(block.pointer);
  (void)cudaStreamDestroy(native(stream_));
}

void Device::activate() const { check(cudaSetDevice(index_), "choosing the device"); }

void* Device::allocate(uint64_t bytes) {
  if (bytes == 0) return nullptr;
  if (limit_ > 0 && (bytes > limit_ || bytes_ > limit_ - bytes)) {
    raise(COV_MEMORY_LIMIT, "%" PRIu64 " bytes more would pass the limit of %" PRIu64, bytes,
          limit_);
  }
  void* pointer = nullptr;
  if (const cudaError_t error = cudaMalloc(&pointer, bytes); error != cudaSuccess) {
    (void)cudaGetLastError();
    raise(error == cudaErrorMemoryAllocation ? COV_OUT_OF_MEMORY : COV_INTERNAL,
          "%" PRIu64 " bytes on CUDA device %d: %s", bytes, index_, cudaGetErrorString(error));
  }
  try {
    blocks_.push_back({pointer, bytes});
  } catch (...) {
    (void)cudaFree(pointer);
    throw;
  }
  bytes_ += bytes;
  peak_bytes_ = std::max(peak_bytes_, bytes_);
  return pointer;
}

void Device::release(void* pointer) {
  const auto found = std::find_if(blocks_.begin(), blocks_.end(),
                                  [&](const Block& block) { return block.pointer == pointer; });
  if (found == blocks_.end()) return;
  (void)cudaFree(pointer);
  bytes_ -= found->bytes;
  *found = blocks_.back();
  blocks_.pop_back();
}

void Device::upload(void* device, const void* host, uint64_t bytes) {
  if (bytes == 0) return;
  check(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, native(stream_)),
        "copying to the device");
}

void Device::download(void* host, const void* device, uint64_t bytes) {
  if (bytes == 0) return;
  check(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, native(stream_)),
        "copying from the device");
}

void Device::copy(void* to, const void* from, uint64_t bytes) {
  if (bytes == 0) return;
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, native(stream_)),
        "copying on the device");
}

void Device::fill_zero(void* device, uint64_t bytes) {
  if (bytes == 0) return;
  check(cudaMemsetAsync(device, 0, bytes, native(stream_)), "clearing memory of the device");
}

void Device::fill_ones(void* device, uint64_t bytes) {
  if (bytes == 0) return;
  check(cudaMemsetAsync(device, 0xff, bytes, native(stream_)), "clearing memory of the device");
}

void Device::finish() { check(cudaStreamSynchronize(native(stream_)), "work on the device"); }

Arena::~Arena() { shrink(); }

void Arena::shrink() {
  for (const Part& part : parts_) device_.release(part.pointer);
  parts_.clear();
  part_ = 0;
  top_ = 0;
}

void* Arena::take_bytes(uint64_t bytes) {
  const uint64_t wanted = std::max(kAlignment, (bytes + kAlignment - 1) / kAlignment * kAlignment);
  while (part_ < parts_.size() && parts_[part_].bytes - top_ < wanted) {
    ++part_;
    top_ = 0;
  }
  if (part_ == parts_.size()) {
    const uint64_t size = std::max(wanted, kPartBytesMin);
    parts_.reserve(parts_.size() + 1);
    parts_.push_back({device_.allocate(size), size});
    top_ = 0;
  }
  void* const pointer = static_cast<char*>(parts_[part_].pointer) + top_;
  top_ += wanted;
  return pointer;
}

// Back to the bottom with several parts: one part of their sum serves the next call without gaps.
void Arena::leave(size_t part, uint64_t top) {
  part_ = part;
  top_ = top;
  if (part_ != 0 || top_ != 0 || parts_.size() < 2) return;
  uint64_t sum = 0;
  for (const Part& one : parts_) sum += one.bytes;
  // Work on the old parts may still be queued.
  try {
    device_.finish();
    shrink();
    parts_.reserve(1);
    parts_.push_back({device_.allocate(sum), sum});
  } catch (...) {
    // Nothing is held then; the next call allocates anew and reports what is wrong.
  }
}

PinnedBuffer::~PinnedBuffer() { (void)cudaFreeHost(data_); }

void* PinnedBuffer::reserve(uint64_t bytes) {
  if (bytes <= bytes_) return data_;
  (void)cudaFreeHost(data_);
  data_ = nullptr;
  bytes_ = 0;
  if (cudaMallocHost(&data_, bytes) != cudaSuccess) {
    (void)cudaGetLastError();
    data_ = nullptr;
    raise(COV_OUT_OF_MEMORY, "%" PRIu64 " bytes of page-locked memory", bytes);
  }
  bytes_ = bytes;
  return data_;
}

Timer::Timer(Stream stream) : stream_(stream) {
  for (void*& event : events_) {
    cudaEvent_t created = nullptr;
    check(cudaEventCreate(&created), "creating an event");
    event = created;
  }
}

Timer::~Timer() {
  for (void* const event : events_) {
    if (event != nullptr) (void)cudaEventDestroy(static_cast<cudaEvent_t>(event));
  }
}

void Timer::start() {
  check(cudaEventRecord(static_cast<cudaEvent_t>(events_[0]), native(stream_)), "timing");
}

float Timer::stop() {
  const auto first = static_cast<cudaEvent_t>(events_[0]);
  const auto last = static_cast<cudaEvent_t>(events_[1]);
  check(cudaEventRecord(last, native(stream_)), "timing");
  check(cudaEventSynchronize(last), "timing");
  float milliseconds = 0;
  check(cudaEventElapsedTime(&milliseconds, first, last), "timing");
  return milliseconds;
}

}  // namespace covenant::cuda
