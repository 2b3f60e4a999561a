// The whole test framework: each test file is one program that exits 1 when a check failed.
#pragma once

#include <cmath>
#include <cstdio>
#include <cstring>

namespace covenant_test {

// Under a sanitizer code runs some 20 times slower. Tests then take smaller shapes and fewer rounds,
// through the same branches.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool kSanitized = true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
inline constexpr bool kSanitized = true;
#else
inline constexpr bool kSanitized = false;
#endif
#else
inline constexpr bool kSanitized = false;
#endif
template <typename T>
constexpr T unless_sanitized(T usual, T sanitized) {
  return kSanitized ? sanitized : usual;
}

inline int failures = 0;

inline void report(bool ok, const char* file, int line, const char* what) {
  if (ok) return;
  ++failures;
  if (failures <= 50) std::fprintf(stderr, "%s:%d: check failed: %s\n", file, line, what);
}

inline int finish(const char* name) {
  if (failures == 0)
    std::printf("%s: ok\n", name);
  else
    std::printf("%s: %d failed checks\n", name, failures);
  return failures == 0 ? 0 : 1;
}
}  // namespace covenant_test

#define CHECK(condition) covenant_test::report(!!(condition), __FILE__, __LINE__, #condition)

// |actual - expected| <= tolerance; NaN fails. Prints both values.
#define CHECK_NEAR(actual, expected, tolerance)                                           \
  do {                                                                                    \
    const double check_a = static_cast<double>(actual);                                   \
    const double check_e = static_cast<double>(expected);                                 \
    const bool check_ok = std::fabs(check_a - check_e) <= static_cast<double>(tolerance); \
    if (!check_ok && covenant_test::failures < 50)                                        \
      std::fprintf(stderr, "  %s = %.9g, expected %.9g\n", #actual, check_a, check_e);    \
    covenant_test::report(check_ok, __FILE__, __LINE__, #actual " near " #expected);      \
  } while (0)

// Same bytes; none are the same wherever they lie, null included.
#define CHECK_SAME(a, b, bytes)                                                                 \
  covenant_test::report((bytes) == 0 || std::memcmp((a), (b), (bytes)) == 0, __FILE__, __LINE__, \
                        #a " same as " #b)

#define CHECK_OK(expression)                                                        \
  do {                                                                              \
    const cov_status check_s = (expression);                                        \
    if (check_s.code != COV_OK)                                                     \
      std::fprintf(stderr, "  status %d: %s\n", check_s.code, check_s.message);     \
    covenant_test::report(check_s.code == COV_OK, __FILE__, __LINE__, #expression); \
  } while (0)

#define CHECK_CODE(expression, expected)                                     \
  covenant_test::report((expression).code == (expected), __FILE__, __LINE__, \
                        #expression " is " #expected)

#define TEST_MAIN_END(name) return covenant_test::finish(name)
