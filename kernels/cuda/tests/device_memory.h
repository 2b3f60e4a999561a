// Device memory that a test fills and reads back.
#pragma once

#include <vector>

#include "device_test.h"

namespace covenant_test {

// Device memory with the contents of a vector.
class OnDevice {
 public:
  // `skew` floats before the data make its address unaligned.
  OnDevice(cov_device* device, const std::vector<float>& values, size_t skew = 0)
      : device_(device), count_(values.size()) {
    CHECK_OK(cov_device_allocate(device, 4 * (count_ + skew), &memory_));
    data_ = static_cast<float*>(memory_) + skew;
    CHECK_OK(cov_device_upload(device, data_, values.data(), 4 * count_));
  }
  ~OnDevice() { cov_device_free(device_, memory_); }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;
  float* data() const { return data_; }
  std::vector<float> read() const {
    std::vector<float> out(count_);
    CHECK_OK(cov_device_download(device_, out.data(), data_, 4 * count_));
    return out;
  }

 private:
  cov_device* device_;
  uint64_t count_;
  void* memory_ = nullptr;
  float* data_ = nullptr;
};

}  // namespace covenant_test
