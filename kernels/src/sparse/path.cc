#include "sparse/path.h"

#include <cstring>

#include "covenant/model.h"

namespace covenant::sparse {
namespace {

constexpr SparsePath kPortable = {gather_portable, magnitude_portable, encode_portable};
#if defined(__x86_64__)
constexpr SparsePath kAvx2 = {gather_avx2, magnitude_portable, encode_portable};
constexpr SparsePath kAvx512 = {gather_avx512, magnitude_avx512, encode64_avx512};
#endif

}  // namespace

const SparsePath& sparse_path() {
#if defined(__x86_64__)
  // Paths of the engine that need more than AVX-512 use its code here.
  const char* const name = cov_cpu_path();
  if (std::strcmp(name, "portable") == 0) return kPortable;
  if (!__builtin_cpu_supports("bmi2")) return kPortable;
  return std::strcmp(name, "avx2") == 0 ? kAvx2 : kAvx512;
#else
  return kPortable;
#endif
}

}  // namespace covenant::sparse
