#include "sparse/path.h"

#include <cstring>

#include "covenant/model.h"

namespace covenant::sparse {
namespace {

constexpr SparsePath kPortable = {gather_portable,   magnitude_portable,  encode_portable,
                                  decode64_portable, count_high_portable, apply_portable,
                                  apply_tally_portable};
#if defined(__x86_64__)
constexpr SparsePath kAvx2 = {gather_avx2,     magnitude_portable, encode_portable, decode64_avx2,
                              count_high_avx2, apply_avx2,         apply_tally_avx2};
constexpr SparsePath kAvx512 = {gather_avx512,   magnitude_avx512, encode64_avx512, decode64_avx2,
                                count_high_avx2, apply_avx512,     apply_tally_avx512};
constexpr SparsePath kAvx512Vbmi = {
    gather_avx512,   magnitude_avx512, encode64_avx512,   decode64_avx512vbmi,
    count_high_avx2, apply_avx512,     apply_tally_avx512};
#endif

}  // namespace

const SparsePath& sparse_path() {
#if defined(__x86_64__)
  // Paths of the engine that need more than AVX-512 use its code here.
  const char* const name = cov_cpu_path();
  if (std::strcmp(name, "portable") == 0) return kPortable;
  if (!__builtin_cpu_supports("bmi2")) return kPortable;
  if (std::strcmp(name, "avx2") == 0) return kAvx2;
  const bool vbmi =
      __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vbmi2");
  return vbmi ? kAvx512Vbmi : kAvx512;
#else
  return kPortable;
#endif
}

}  // namespace covenant::sparse
