// Cuts one block of device memory into aligned parts; without a block it only counts, so that the same code says
// how much is needed and where it lies.
#pragma once

#include <cstdint>

namespace covenant::cuda {

class Cutter {
 public:
  explicit Cutter(char* base) : base_(base) {}
  template <typename T>
  T* take(int64_t count) {
    T* const part = base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + bytes_);
    bytes_ += (static_cast<uint64_t>(count) * sizeof(T) + 255) / 256 * 256;
    return part;
  }
  uint64_t bytes() const { return bytes_; }

 private:
  char* base_;
  uint64_t bytes_ = 0;
};

}  // namespace covenant::cuda
