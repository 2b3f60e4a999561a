// Memory, stream and faults of one CUDA device. Plain C++: files without device code include this.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "core/failure.h"

namespace covenant::cuda {

// A fault inside the backend is a Failure. `guard` turns it into the status that the C API returns.
[[noreturn]] void raise(cov_code code, const char* format, ...)
    __attribute__((format(printf, 2, 3)));

// Raises the failure of a launch that was refused; faults while running surface at finish().
void check_launch(const char* kernel);

// Work in a stream runs in order.
struct Stream {
  void* handle = nullptr;
};

class Arena;

// One device as one model or one run uses it: a stream, scratch memory, and a count of what is
// allocated. Calls on one Device must not overlap.
class Device {
 public:
  // memory_limit_bytes 0: no limit but the device's own.
  Device(int32_t index, uint64_t memory_limit_bytes);
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  // Makes it the current device of the calling thread; every call of the API starts with it.
  void activate() const;
  int32_t index() const { return index_; }
  Stream stream() const { return stream_; }
  Arena& scratch() { return *scratch_; }
  int32_t multiprocessors() const { return multiprocessors_; }

  // Aligned to 256 bytes, contents undefined. COV_MEMORY_LIMIT or COV_OUT_OF_MEMORY.
  void* allocate(uint64_t bytes);
  void release(void* pointer);
  uint64_t bytes() const { return bytes_; }
  uint64_t peak_bytes() const { return peak_bytes_; }

  // Queued on the stream. Host memory must stay as it is until finish().
  void upload(void* device, const void* host, uint64_t bytes);
  void download(void* host, const void* device, uint64_t bytes);
  void copy(void* to, const void* from, uint64_t bytes);
  void fill_zero(void* device, uint64_t bytes);
  void fill_ones(void* device, uint64_t bytes);  // every bit
  // Waits for everything queued; raises what went wrong in it.
  void finish();

 private:
  struct Block {
    void* pointer;
    uint64_t bytes;
  };
  int32_t index_;
  int32_t multiprocessors_ = 1;
  uint64_t limit_;
  uint64_t bytes_ = 0;
  uint64_t peak_bytes_ = 0;
  Stream stream_;
  std::vector<Block> blocks_;
  std::unique_ptr<Arena> scratch_;
};

// Scratch memory of one call. Grows to what the largest call needs and is then reused, so that a
// steady state allocates nothing.
class Arena {
 public:
  explicit Arena(Device& device) : device_(device) {}
  ~Arena();

  // Room for `count` elements, aligned to 256 bytes, contents undefined.
  template <typename T>
  T* take(uint64_t count) {
    return static_cast<T*>(take_bytes(count * sizeof(T)));
  }
  // Gives the scratch memory back to the device.
  void shrink();

  // What was taken since its construction is free again after it.
  class Scope {
   public:
    explicit Scope(Arena& arena) : arena_(arena), top_(arena.top_), part_(arena.part_) {}
    ~Scope() { arena_.leave(part_, top_); }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Arena& arena_;
    uint64_t top_;
    size_t part_;
  };

 private:
  struct Part {
    void* pointer;
    uint64_t bytes;
  };
  void* take_bytes(uint64_t bytes);
  void leave(size_t part, uint64_t top);

  Device& device_;
  std::vector<Part> parts_;
  size_t part_ = 0;
  uint64_t top_ = 0;
};

// Device memory that is released with its owner.
template <typename T>
class Buffer {
 public:
  Buffer() = default;
  Buffer(Device& device, uint64_t count)
      : device_(&device),
        data_(static_cast<T*>(device.allocate(count * sizeof(T)))),
        count_(count) {}
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    swap(other);
    return *this;
  }
  ~Buffer() {
    if (data_ != nullptr) device_->release(data_);
  }
  T* data() const { return data_; }
  uint64_t count() const { return count_; }
  uint64_t bytes() const { return count_ * sizeof(T); }

 private:
  void swap(Buffer& other) {
    std::swap(device_, other.device_);
    std::swap(data_, other.data_);
    std::swap(count_, other.count_);
  }
  Device* device_ = nullptr;
  T* data_ = nullptr;
  uint64_t count_ = 0;
};

// Page-locked host memory: copies to and from it run at the full speed of the link and need no
// staging.
class PinnedBuffer {
 public:
  PinnedBuffer() = default;
  ~PinnedBuffer();
  PinnedBuffer(const PinnedBuffer&) = delete;
  PinnedBuffer& operator=(const PinnedBuffer&) = delete;
  // At least `bytes`; what was in it is lost when it grows.
  void* reserve(uint64_t bytes);

 private:
  void* data_ = nullptr;
  uint64_t bytes_ = 0;
};

// Milliseconds between two points of a stream.
class Timer {
 public:
  explicit Timer(Stream stream);
  ~Timer();
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;
  void start();
  // Waits for the work since start().
  float stop();

 private:
  Stream stream_;
  void* events_[2] = {nullptr, nullptr};
};

// Runs a call of the C API: whatever goes wrong inside becomes its status.
template <typename Body>
cov_status guard(const Body& body) noexcept {
  try {
    body();
    return cov_ok();
  } catch (const Failure& failure) {
    return failure.status;
  } catch (const std::bad_alloc&) {
    return cov_error(COV_OUT_OF_MEMORY, "no host memory for a call of the CUDA backend");
  } catch (...) {
    return cov_error(COV_INTERNAL, "an exception inside the CUDA backend");
  }
}

// Raises a status that is not COV_OK.
inline void require(const cov_status& status) {
  if (status.code != COV_OK) throw Failure{status};
}

}  // namespace covenant::cuda
