// Products in bf16 by cuBLASLt, loaded at run time. Tier C: it chooses an algorithm by the shape.
#pragma once

#include <memory>

#include "engine/gemm_bf16.cuh"

namespace covenant::cuda {

class VendorProducts {
 public:
  // From the file named by COVENANT_CUBLASLT_LIBRARY, else libcublasLt.so.13 or .12. COV_UNSUPPORTED, with
  // the reason, when there is none of version 12.0 or newer.
  explicit VendorProducts(Device& device);
  ~VendorProducts();
  // As the own `multiply`.
  void multiply(const ProductBf16& product);

 private:
  struct Library;
  struct Plan;
  const Plan& plan_for(const ProductBf16& product);

  Device& device_;
  std::unique_ptr<Library> library_;
  Buffer<char> workspace_;
};

}  // namespace covenant::cuda
