// Types and intrinsics of CUDA device code in terms of C++. Part of emulation.h.
#pragma once

#include <bit>
#include <cmath>
#include <cstring>
#include <type_traits>

struct __align__(8) float2 { float x, y; };
struct __align__(16) float4 { float x, y, z, w; };
struct __align__(16) int4 { int x, y, z, w; };
struct __align__(8) uint2 { unsigned x, y; };
struct __align__(16) uint4 { unsigned x, y, z, w; };
struct __align__(8) ushort4 { unsigned short x, y, z, w; };

inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline ushort4 make_ushort4(unsigned short x, unsigned short y, unsigned short z,
                            unsigned short w) {
  return {x, y, z, w};
}

// --- arithmetic: one rounding each; built without contraction --------------------------------

inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline double __dsqrt_rn(double a) { return std::sqrt(a); }
inline float __double2float_rn(double a) { return static_cast<float>(a); }
inline float __int2float_rn(int a) { return static_cast<float>(a); }

// --- bits --------------------------------------------------------------------------------------

inline unsigned __float_as_uint(float a) { return std::bit_cast<unsigned>(a); }
inline float __uint_as_float(unsigned a) { return std::bit_cast<float>(a); }
inline long long __double_as_longlong(double a) { return std::bit_cast<long long>(a); }
inline double __longlong_as_double(long long a) { return std::bit_cast<double>(a); }
inline int __popc(unsigned a) { return std::popcount(a); }
inline int __clz(int a) { return std::countl_zero(static_cast<unsigned>(a)); }
inline int __clzll(long long a) { return std::countl_zero(static_cast<unsigned long long>(a)); }
inline int __ffs(int a) { return a == 0 ? 0 : std::countr_zero(static_cast<unsigned>(a)) + 1; }
inline unsigned __brev(unsigned a) {
  unsigned out = 0;
  for (int i = 0; i < 32; ++i) out |= (a >> i & 1u) << (31 - i);
  return out;
}
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>(static_cast<uint64_t>(a) * b >> 32);
}
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
  const uint64_t both = static_cast<uint64_t>(high) << 32 | low;
  return static_cast<unsigned>(both << (shift & 31) >> 32);
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
  const uint64_t both = static_cast<uint64_t>(high) << 32 | low;
  return static_cast<unsigned>(both >> (shift & 31));
}
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
  const uint64_t both = static_cast<uint64_t>(b) << 32 | a;
  unsigned out = 0;
  for (int i = 0; i < 4; ++i) {
    const unsigned code = selector >> (4 * i);
    unsigned byte = static_cast<unsigned>(both >> (8 * (code & 7))) & 0xff;
    if (code & 8) byte = byte & 0x80 ? 0xff : 0;
    out |= byte << (8 * i);
  }
  return out;
}

template <typename A, typename B>
constexpr std::common_type_t<A, B> min(A a, B b) {
  return b < a ? b : a;
}
template <typename A, typename B>
constexpr std::common_type_t<A, B> max(A a, B b) {
  return a < b ? b : a;
}

// --- memory ------------------------------------------------------------------------------------

template <typename T>
T __ldg(const T* at) { return *at; }
template <typename T>
T __ldcs(const T* at) { return *at; }
template <typename T>
void __stcs(T* at, T value) { *at = value; }

// Integers only: float atomics would make results depend on the order of threads.
template <typename T, typename Change>
T emulated_atomic(T* at, Change change) {
  static_assert(std::is_integral_v<T>, "no float atomics: results must not depend on order");
  const T before = *at;
  *at = change(before);
  return before;
}
template <typename T>
T atomicAdd(T* at, std::type_identity_t<T> value) {
  return emulated_atomic(at, [=](T x) { return static_cast<T>(x + value); });
}
template <typename T>
T atomicMin(T* at, std::type_identity_t<T> value) {
  return emulated_atomic(at, [=](T x) { return value < x ? value : x; });
}
template <typename T>
T atomicMax(T* at, std::type_identity_t<T> value) {
  return emulated_atomic(at, [=](T x) { return x < value ? value : x; });
}
template <typename T>
T atomicOr(T* at, std::type_identity_t<T> value) {
  return emulated_atomic(at, [=](T x) { return static_cast<T>(x | value); });
}
template <typename T>
T atomicExch(T* at, std::type_identity_t<T> value) {
  return emulated_atomic(at, [=](T) { return value; });
}

// --- block and warp ------------------------------------------------------------------------------

inline void __syncthreads() { covenant::emulation::block_barrier(false); }
inline int __syncthreads_count(int p) {
  return static_cast<int>(covenant::emulation::block_barrier(p != 0));
}

inline void __syncwarp(unsigned mask = 0xffffffffu) {
  covenant::emulation::warp(covenant::emulation::WarpOperation::kSync, mask, 0);
}

template <typename T>
uint64_t emulated_operand(T value) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8);
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  return bits;
}

template <typename T>
T emulated_shuffle(unsigned mask, T value, unsigned source) {
  const uint64_t bits = covenant::emulation::warp(covenant::emulation::WarpOperation::kShuffle,
                                                  mask, emulated_operand(value), source);
  T out;
  std::memcpy(&out, &bits, sizeof out);
  return out;
}

template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
  const unsigned first = covenant::emulation::lane() & ~static_cast<unsigned>(width - 1);
  return emulated_shuffle(mask, value, first + (static_cast<unsigned>(source) & (width - 1)));
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  const unsigned self = covenant::emulation::lane();
  const unsigned place = self & static_cast<unsigned>(width - 1);
  return emulated_shuffle(mask, value, place >= delta ? self - delta : self);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  const unsigned self = covenant::emulation::lane();
  const unsigned place = self & static_cast<unsigned>(width - 1);
  return emulated_shuffle(mask, value,
                          place + delta < static_cast<unsigned>(width) ? self + delta : self);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32) {
  const unsigned self = covenant::emulation::lane();
  const unsigned other = self ^ static_cast<unsigned>(lanes);
  const unsigned group = self & ~static_cast<unsigned>(width - 1);
  return emulated_shuffle(mask, value,
                          (other & ~static_cast<unsigned>(width - 1)) <= group ? other : self);
}

inline unsigned __ballot_sync(unsigned mask, int p) {
  return static_cast<unsigned>(
      covenant::emulation::warp(covenant::emulation::WarpOperation::kBallot, mask, p != 0));
}
inline int __any_sync(unsigned mask, int p) { return __ballot_sync(mask, p) != 0; }
inline int __all_sync(unsigned mask, int p) { return __ballot_sync(mask, p == 0) == 0; }
template <typename T>
unsigned __match_any_sync(unsigned mask, T value) {
  return static_cast<unsigned>(covenant::emulation::warp(
      covenant::emulation::WarpOperation::kMatch, mask, emulated_operand(value)));
}

#define COVENANT_EMULATED_REDUCE(name, type, operation)                                         \
  inline type name(unsigned mask, type value) {                                                 \
    return static_cast<type>(covenant::emulation::warp(                                         \
        covenant::emulation::WarpOperation::operation, mask, static_cast<unsigned>(value)));    \
  }
COVENANT_EMULATED_REDUCE(__reduce_add_sync, unsigned, kAdd)
COVENANT_EMULATED_REDUCE(__reduce_add_sync, int, kAdd)
COVENANT_EMULATED_REDUCE(__reduce_min_sync, unsigned, kMin)
COVENANT_EMULATED_REDUCE(__reduce_max_sync, unsigned, kMax)
COVENANT_EMULATED_REDUCE(__reduce_min_sync, int, kMinSigned)
COVENANT_EMULATED_REDUCE(__reduce_max_sync, int, kMaxSigned)
COVENANT_EMULATED_REDUCE(__reduce_and_sync, unsigned, kAnd)
COVENANT_EMULATED_REDUCE(__reduce_or_sync, unsigned, kOr)
COVENANT_EMULATED_REDUCE(__reduce_xor_sync, unsigned, kXor)
#undef COVENANT_EMULATED_REDUCE
