// What the machine can do at most, measured where it is needed: benchmarks report ratios to these,
// never times alone. Nothing here uses the kernels, so that no defect of theirs lowers the limit.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <ctime>
#include <memory>
#include <thread>
#include <vector>

#include "rows.h"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace covenant_bench {

namespace detail {

// Starts `threads` threads, lets each run body(thread) at the same instant, and returns the time
// from that instant to the end of the last.
template <typename Body>
double together_s(int threads, const Body& body) {
  if (threads == 1) return time_s([&] { body(0); });
  std::atomic<int> ready{0};
  std::atomic<bool> go{false};
  std::vector<std::thread> workers;
  for (int t = 0; t < threads; ++t)
    workers.emplace_back([&, t] {
      ready.fetch_add(1);
      while (!go.load(std::memory_order_acquire)) std::this_thread::yield();
      body(t);
    });
  while (ready.load() < threads) std::this_thread::yield();
  return time_s([&] {
    go.store(true, std::memory_order_release);
    for (std::thread& worker : workers) worker.join();
  });
}

// a = b + s * c without reading a: the stores go around the caches where the machine can.
inline void triad(float* a, const float* b, const float* c, int64_t count) {
#if defined(__x86_64__)
  const __m128 s = _mm_set1_ps(3.0f);
  for (int64_t i = 0; i < count; i += 16)
    for (int64_t j = i; j < i + 16; j += 4)
      _mm_stream_ps(a + j, _mm_add_ps(_mm_load_ps(b + j), _mm_mul_ps(s, _mm_load_ps(c + j))));
  _mm_sfence();
#else
  for (int64_t i = 0; i < count; ++i) a[i] = b[i] + 3.0f * c[i];
#endif
}

// a = a + s * b - c, in place: three streams read, one of them written.
inline void update(float* __restrict a, const float* __restrict b, const float* __restrict c,
                   int64_t count) {
  for (int64_t i = 0; i < count; ++i) a[i] = a[i] * 0.5f + (b[i] - c[i]);
}

constexpr int kChains = 16;  // independent sums: more than latency times ports of any core

#if defined(__x86_64__)
__attribute__((target("avx512f"))) inline float fma_loop_avx512(int64_t rounds) {
  __m512 sum[kChains];
  for (int i = 0; i < kChains; ++i) sum[i] = _mm512_set1_ps(1.0f + static_cast<float>(i));
  const __m512 x = _mm512_set1_ps(0.999f), y = _mm512_set1_ps(0.001f);
  for (int64_t r = 0; r < rounds; ++r)
    for (int i = 0; i < kChains; ++i) sum[i] = _mm512_fmadd_ps(sum[i], x, y);
  for (int i = 1; i < kChains; ++i) sum[0] = _mm512_add_ps(sum[0], sum[i]);
  return _mm512_cvtss_f32(sum[0]);
}

__attribute__((target("avx2,fma"))) inline float fma_loop_avx2(int64_t rounds) {
  constexpr int kUsed = 12;  // sixteen registers hold the constants as well
  __m256 sum[kUsed];
  for (int i = 0; i < kUsed; ++i) sum[i] = _mm256_set1_ps(1.0f + static_cast<float>(i));
  const __m256 x = _mm256_set1_ps(0.999f), y = _mm256_set1_ps(0.001f);
  for (int64_t r = 0; r < rounds; ++r)
    for (int i = 0; i < kUsed; ++i) sum[i] = _mm256_fmadd_ps(sum[i], x, y);
  for (int i = 1; i < kUsed; ++i) sum[0] = _mm256_add_ps(sum[0], sum[i]);
  return _mm256_cvtss_f32(sum[0]);
}

__attribute__((target("avx512f,avx512bw,avx512bf16"))) inline float bf16_loop(int64_t rounds) {
  __m512 sum[kChains];
  for (int i = 0; i < kChains; ++i) sum[i] = _mm512_set1_ps(static_cast<float>(i));
  const __m512bh x = (__m512bh)_mm512_set1_epi32(0x3f803f80);  // pairs of 1.0
  const __m512bh y = (__m512bh)_mm512_set1_epi32(0x3a803a80);
  for (int64_t r = 0; r < rounds; ++r)
    for (int i = 0; i < kChains; ++i) sum[i] = _mm512_dpbf16_ps(sum[i], x, y);
  for (int i = 1; i < kChains; ++i) sum[0] = _mm512_add_ps(sum[0], sum[i]);
  return _mm512_cvtss_f32(sum[0]);
}
#endif

// Keeps the compiler from dropping a loop whose result nobody reads.
inline void keep(float value) {
  volatile float sink = value;
  (void)sink;
}

// Processor time of this thread: a neighbour's load changes it far less than the clock on the wall.
inline double thread_s() {
  timespec time = {};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

template <typename Loop>
double rate_gflops(double seconds, double flop_per_round, const Loop& loop) {
  constexpr int64_t kRounds = 1 << 20;
  double best = std::numeric_limits<double>::infinity();
  const double end = now_s() + seconds;
  for (int i = 0; i < 5 || now_s() < end; ++i) {
    const double start = thread_s();
    keep(loop(kRounds));
    best = std::min(best, thread_s() - start);
  }
  return 1e-9 * flop_per_round * kRounds / best;
}

}  // namespace detail

// Gigabytes per second that `threads` threads move between memory and the core: the better of
// STREAM's triad (two streams read, one written around the caches) and an update in place (three
// read, one written back). Bytes that the program asks for are counted, nothing more.
inline double memory_gbps(int threads, const Options& options) {
  const int64_t count = (options.quick ? 8 : 24) << 20;  // floats: well beyond the caches
  const int64_t share = count / threads / 64 * 64;
  std::unique_ptr<float, decltype(&std::free)> memory(
      static_cast<float*>(std::aligned_alloc(64, static_cast<size_t>(count) * 12)), &std::free);
  if (memory == nullptr) return kNone;
  float *a = memory.get(), *b = a + count, *c = b + count;
  const auto part = [&](int t) { return t * share; };
  // The thread that uses a page is the first to write it.
  detail::together_s(threads, [&](int t) {
    std::fill_n(a + part(t), share, 1.0f);
    std::fill_n(b + part(t), share, 2.0f);
    std::fill_n(c + part(t), share, 3.0f);
  });
  double best = 0;
  for (int i = 0; i < (options.quick ? 3 : 12); ++i) {
    const double triad = detail::together_s(threads, [&](int t) {
      detail::triad(a + part(t), b + part(t), c + part(t), share);
    });
    const double update = detail::together_s(threads, [&](int t) {
      detail::update(a + part(t), b + part(t), c + part(t), share);
    });
    const double floats = static_cast<double>(share) * threads;
    best = std::max({best, 12e-9 * floats / triad, 16e-9 * floats / update});
  }
  return best;
}

// Billions of fp32 operations per second of one core (a fused multiply-add is two), by the widest
// vectors it has.
inline double fp32_peak_gflops(const Options& options) {
  const double seconds = options.quick ? 0.05 : 0.3;
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f"))
    return detail::rate_gflops(seconds, 2.0 * 16 * detail::kChains, detail::fma_loop_avx512);
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
    return detail::rate_gflops(seconds, 2.0 * 8 * 12, detail::fma_loop_avx2);
  return detail::rate_gflops(seconds, 2.0 * 4 * detail::kChains, [](int64_t rounds) {
    __m128 sum[detail::kChains];
    for (int i = 0; i < detail::kChains; ++i) sum[i] = _mm_set1_ps(static_cast<float>(i));
    const __m128 x = _mm_set1_ps(0.999f), y = _mm_set1_ps(0.001f);
    for (int64_t r = 0; r < rounds; ++r)
      for (__m128& value : sum) value = _mm_add_ps(_mm_mul_ps(value, x), y);
    for (int i = 1; i < detail::kChains; ++i) sum[0] = _mm_add_ps(sum[0], sum[i]);
    return _mm_cvtss_f32(sum[0]);
  });
#elif defined(__aarch64__)
  return detail::rate_gflops(seconds, 2.0 * 4 * detail::kChains, [](int64_t rounds) {
    float32x4_t sum[detail::kChains];
    for (int i = 0; i < detail::kChains; ++i) sum[i] = vdupq_n_f32(static_cast<float>(i));
    const float32x4_t x = vdupq_n_f32(0.999f), y = vdupq_n_f32(0.001f);
    for (int64_t r = 0; r < rounds; ++r)
      for (float32x4_t& value : sum) value = vfmaq_f32(y, value, x);
    for (int i = 1; i < detail::kChains; ++i) sum[0] = vaddq_f32(sum[0], sum[i]);
    return vgetq_lane_f32(sum[0], 0);
  });
#else
  return kNone;
#endif
}

// The same of dot products of bf16 pairs into fp32 (two multiply-adds per lane); kNone where the
// core has none.
inline double bf16_peak_gflops(const Options& options) {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512bf16"))
    return detail::rate_gflops(options.quick ? 0.05 : 0.3, 4.0 * 16 * detail::kChains,
                               detail::bf16_loop);
#endif
  (void)options;
  return kNone;
}

}  // namespace covenant_bench
