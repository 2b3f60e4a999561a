// Memory of one model: counted, capped, 64-byte aligned. A refused allocation throws Failure, which
// the C API turns into a status; it never leaves the library.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <utility>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "core/failure.h"

namespace covenant {

class Memory {
 public:
  explicit Memory(uint64_t limit_bytes) : limit_bytes_(limit_bytes) {}

  void* allocate(uint64_t bytes) {
    const uint64_t rounded = (bytes + 63) / 64 * 64;
    if (limit_bytes_ != 0 && (rounded > limit_bytes_ || used_bytes_ > limit_bytes_ - rounded))
      throw Failure{cov_error(
          COV_MEMORY_LIMIT, "%llu bytes more than the limit of %llu (in use: %llu)",
          static_cast<unsigned long long>(rounded), static_cast<unsigned long long>(limit_bytes_),
          static_cast<unsigned long long>(used_bytes_))};
    void* data = rounded > (uint64_t{1} << 46) ? nullptr : allocate_aligned(rounded);
    if (data == nullptr)
      throw Failure{cov_error(COV_OUT_OF_MEMORY, "the system refused %llu bytes",
                              static_cast<unsigned long long>(rounded))};
    used_bytes_ += rounded;
    if (used_bytes_ > peak_bytes_) peak_bytes_ = used_bytes_;
    return data;
  }

  void release(void* data, uint64_t bytes) {
    if (data == nullptr) return;
    std::free(data);
    used_bytes_ -= (bytes + 63) / 64 * 64;
  }

  uint64_t used_bytes() const { return used_bytes_; }
  uint64_t peak_bytes() const { return peak_bytes_; }

 private:
  // Blocks of a huge page and more lie on huge pages where the system has them: products walk
  // matrices whose rows are pages apart, and weights are read from end to end for every token.
  static void* allocate_aligned(uint64_t bytes) {
    constexpr uint64_t kHuge = uint64_t{2} << 20;
    if (bytes < kHuge) return std::aligned_alloc(64, bytes);
    // Large blocks are filled up, so that their ends lie on huge pages as well.
    const uint64_t size = bytes < 4 * kHuge ? bytes : (bytes + kHuge - 1) / kHuge * kHuge;
    void* data = nullptr;
    if (posix_memalign(&data, kHuge, size) != 0) return nullptr;
#if defined(__linux__)
    (void)madvise(data, size, MADV_HUGEPAGE);
#endif
    return data;
  }

  uint64_t limit_bytes_;
  uint64_t used_bytes_ = 0;
  uint64_t peak_bytes_ = 0;
};

// Uninitialised array of a plain type. Grows by replacing its contents.
template <typename T>
class Buffer {
 public:
  Buffer() = default;
  Buffer(Memory& memory, int64_t count) { reserve(memory, count); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  Buffer(Buffer&& other) noexcept { *this = std::move(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(memory_, other.memory_);
    std::swap(data_, other.data_);
    std::swap(count_, other.count_);
    return *this;
  }
  ~Buffer() { free(); }

  // At least `count` elements afterwards; earlier contents are lost when it has to grow.
  T* reserve(Memory& memory, int64_t count) {
    if (count > count_) {
      free();
      data_ = static_cast<T*>(memory.allocate(static_cast<uint64_t>(count) * sizeof(T)));
      memory_ = &memory;
      count_ = count;
    }
    return data_;
  }

  void free() {
    if (memory_ != nullptr) memory_->release(data_, static_cast<uint64_t>(count_) * sizeof(T));
    memory_ = nullptr;
    data_ = nullptr;
    count_ = 0;
  }

  T* data() const { return data_; }
  int64_t count() const { return count_; }
  T& operator[](int64_t i) const { return data_[i]; }

 private:
  Memory* memory_ = nullptr;
  T* data_ = nullptr;
  int64_t count_ = 0;
};

}  // namespace covenant
