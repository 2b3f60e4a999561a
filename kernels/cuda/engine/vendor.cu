#include "engine/vendor.h"

#include <dlfcn.h>

#include <array>
#include <cstdlib>
#include <map>

#include "engine/swiglu.cuh"

namespace covenant::cuda {
namespace {

// What is used of cublasLt.h, whose matrices are columns beside each other.
constexpr int32_t kSum32 = 68;    // CUBLAS_COMPUTE_32F
constexpr int32_t kF32 = 0;       // CUDA_R_32F
constexpr int32_t kBf16 = 14;     // CUDA_R_16BF
constexpr int32_t kLeftTransposed = 3, kRightTransposed = 4;  // CUBLASLT_MATMUL_DESC_TRANSA, TRANSB
constexpr int32_t kWorkspace = 1;  // CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES
constexpr size_t kVersionMin = 120000;
constexpr uint64_t kWorkspaceBytes = 32 << 20;

struct Algorithm {
  uint64_t data[8];
};
struct Heuristic {
  Algorithm algorithm;
  size_t workspace_bytes;
  int32_t state;
  float waves;
  int32_t reserved[4];
};

struct Calls {
  size_t (*version)();
  int (*create)(void** handle);
  int (*destroy)(void* handle);
  int (*desc_create)(void** desc, int32_t compute, int32_t scale_type);
  int (*desc_destroy)(void* desc);
  int (*desc_set)(void* desc, int32_t attribute, const void* value, size_t bytes);
  int (*layout_create)(void** layout, int32_t type, uint64_t rows, uint64_t columns, int64_t ld);
  int (*layout_destroy)(void* layout);
  int (*preference_create)(void** preference);
  int (*preference_destroy)(void* preference);
  int (*preference_set)(void* preference, int32_t attribute, const void* value, size_t bytes);
  int (*heuristic)(void* handle, void* desc, void* a, void* b, void* c, void* d, void* preference,
                   int wanted, void* results, int* found);
  int (*matmul)(void* handle, void* desc, const void* alpha, const void* a, void* a_layout,
                const void* b, void* b_layout, const void* beta, const void* c, void* c_layout, void* d,
                void* d_layout, const void* algorithm, void* workspace, size_t workspace_bytes,
                void* stream);
};

void check(int status, const char* what) {
  if (status != 0) raise(COV_INTERNAL, "cuBLASLt, %s: status %d", what, status);
}

void* open_library() {
  const char* const wanted = std::getenv("COVENANT_CUBLASLT_LIBRARY");
  if (wanted != nullptr) return dlopen(wanted, RTLD_NOW | RTLD_LOCAL);
  for (const char* const name : {"libcublasLt.so.13", "libcublasLt.so.12"})
    if (void* const found = dlopen(name, RTLD_NOW | RTLD_LOCAL)) return found;
  return nullptr;
}

template <typename Call>
void find(void* library, const char* name, Call& call) {
  call = reinterpret_cast<Call>(dlsym(library, name));
  if (call == nullptr) raise(COV_UNSUPPORTED, "the cuBLASLt that was found has no %s", name);
}

}  // namespace

// Everything about one shape.
struct VendorProducts::Plan {
  const Calls& calls;
  void *desc = nullptr, *a = nullptr, *b = nullptr, *c = nullptr, *preference = nullptr;
  Heuristic chosen{};
  explicit Plan(const Calls& of) : calls(of) {}
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;
  ~Plan() {
    for (void* const layout : {a, b, c})
      if (layout != nullptr) calls.layout_destroy(layout);
    if (preference != nullptr) calls.preference_destroy(preference);
    if (desc != nullptr) calls.desc_destroy(desc);
  }
};

struct VendorProducts::Library {
  void* file = nullptr;
  Calls calls{};
  void* handle = nullptr;
  std::map<std::array<int64_t, 8>, std::unique_ptr<Plan>> plans;
  ~Library() {
    plans.clear();
    if (handle != nullptr) calls.destroy(handle);
    if (file != nullptr) dlclose(file);
  }
};

VendorProducts::VendorProducts(Device& device)
    : device_(device), library_(std::make_unique<Library>()) {
  library_->file = open_library();
  if (library_->file == nullptr) raise(COV_UNSUPPORTED, "no cuBLASLt: %s", dlerror());
  Calls& calls = library_->calls;
  void* const file = library_->file;
  find(file, "cublasLtGetVersion", calls.version);
  if (const size_t version = calls.version(); version < kVersionMin)
    raise(COV_UNSUPPORTED, "the cuBLASLt that was found has version %zu; %zu is needed", version,
          kVersionMin);
  find(file, "cublasLtCreate", calls.create);
  find(file, "cublasLtDestroy", calls.destroy);
  find(file, "cublasLtMatmulDescCreate", calls.desc_create);
  find(file, "cublasLtMatmulDescDestroy", calls.desc_destroy);
  find(file, "cublasLtMatmulDescSetAttribute", calls.desc_set);
  find(file, "cublasLtMatrixLayoutCreate", calls.layout_create);
  find(file, "cublasLtMatrixLayoutDestroy", calls.layout_destroy);
  find(file, "cublasLtMatmulPreferenceCreate", calls.preference_create);
  find(file, "cublasLtMatmulPreferenceDestroy", calls.preference_destroy);
  find(file, "cublasLtMatmulPreferenceSetAttribute", calls.preference_set);
  find(file, "cublasLtMatmulAlgoGetHeuristic", calls.heuristic);
  find(file, "cublasLtMatmul", calls.matmul);
  check(calls.create(&library_->handle), "opening it");
  workspace_ = Buffer<char>(device, kWorkspaceBytes);
}

VendorProducts::~VendorProducts() = default;

// Rows of C beside each other are the columns of C^T (n, m) = B^T A^T: the left side is B's operand.
const VendorProducts::Plan& VendorProducts::plan_for(const ProductBf16& p) {
  const std::array<int64_t, 8> key = {p.m,        p.n,           p.k,           p.a.stride,
                                      p.b.stride, p.a.along_k,   p.b.along_k,   p.rounded != nullptr};
  std::unique_ptr<Plan>& place = library_->plans[key];
  if (place != nullptr) return *place;
  const Calls& calls = library_->calls;
  auto plan = std::make_unique<Plan>(calls);
  const auto layout = [&](void** to, int32_t type, int64_t rows, int64_t columns, int64_t ld) {
    check(calls.layout_create(to, type, static_cast<uint64_t>(rows), static_cast<uint64_t>(columns), ld),
          "describing a matrix");
  };
  check(calls.desc_create(&plan->desc, kSum32, kF32), "describing a product");
  const int32_t left = p.b.along_k ? 1 : 0, right = p.a.along_k ? 0 : 1;
  check(calls.desc_set(plan->desc, kLeftTransposed, &left, sizeof left), "describing a product");
  check(calls.desc_set(plan->desc, kRightTransposed, &right, sizeof right), "describing a product");
  layout(&plan->a, kBf16, p.b.along_k ? p.k : p.n, p.b.along_k ? p.n : p.k, p.b.stride);
  layout(&plan->b, kBf16, p.a.along_k ? p.k : p.m, p.a.along_k ? p.m : p.k, p.a.stride);
  layout(&plan->c, p.rounded != nullptr ? kBf16 : kF32, p.n, p.m, p.n);
  check(calls.preference_create(&plan->preference), "choosing an algorithm");
  check(calls.preference_set(plan->preference, kWorkspace, &kWorkspaceBytes, sizeof kWorkspaceBytes),
        "choosing an algorithm");
  int found = 0;
  check(calls.heuristic(library_->handle, plan->desc, plan->a, plan->b, plan->c, plan->c,
                        plan->preference, 1, &plan->chosen, &found),
        "choosing an algorithm");
  if (found < 1 || plan->chosen.state != 0)
    raise(COV_INTERNAL, "cuBLASLt has no algorithm for a product of %lld, %lld and %lld",
          static_cast<long long>(p.m), static_cast<long long>(p.n), static_cast<long long>(p.k));
  place = std::move(plan);
  return *place;
}

void VendorProducts::multiply(const ProductBf16& p) {
  if (p.m == 0 || p.n == 0) return;
  // Operands that are not aligned to 16 bytes have few algorithms or none: the own kernels take them.
  if (p.a.stride % 8 != 0 || p.b.stride % 8 != 0 || p.n % 8 != 0 || p.m % 8 != 0 || p.k % 8 != 0)
    return cuda::multiply(device_.stream(), p);
  const Plan& plan = plan_for(p);
  const float one = 1.0f, beta = p.init != nullptr ? 1.0f : 0.0f;
  void* const to = p.rounded != nullptr ? static_cast<void*>(p.rounded) : p.c;
  const void* const from = p.init != nullptr ? p.init : to;
  check(library_->calls.matmul(library_->handle, plan.desc, &one, p.b.data, plan.a, p.a.data, plan.b,
                               &beta, from, plan.c, to, plan.c, &plan.chosen.algorithm,
                               workspace_.data(), kWorkspaceBytes, device_.stream().handle),
        "a product");
  if (p.hidden != nullptr) swiglu_bf16(device_.stream(), p.rounded, p.m, p.n / 2, p.hidden);
}

}  // namespace covenant::cuda
