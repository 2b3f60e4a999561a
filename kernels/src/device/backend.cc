// Finding and loading the CUDA library.
#include "device/backend.h"

#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

namespace covenant::device {
namespace {

#if defined(__APPLE__)
constexpr const char* kLibraryName = "libcovenant_cuda.dylib";
#else
constexpr const char* kLibraryName = "libcovenant_cuda.so";
#endif

struct Loaded {
  const Backend* backend = nullptr;
  int32_t count = 0;
  char report[320] = {};
};

// The folder of the file that this function is in: the addon, a program or a shared library.
std::string own_folder() {
  Dl_info info;
  if (dladdr(reinterpret_cast<const void*>(&own_folder), &info) == 0 || info.dli_fname == nullptr)
    return ".";
  const std::string file = info.dli_fname;
  const size_t slash = file.rfind('/');
  return slash == std::string::npos ? "." : file.substr(0, slash);
}

bool readable(const std::string& path) {
  std::FILE* const file = std::fopen(path.c_str(), "rb");
  if (file != nullptr) std::fclose(file);
  return file != nullptr;
}

void load(Loaded& loaded) {
  const char* const named = std::getenv("COVENANT_CUDA_LIBRARY");
  const std::string path =
      named != nullptr && *named != '\0' ? named : own_folder() + "/" + kLibraryName;
  const auto say = [&](const char* format, const char* detail) {
    const int length = std::snprintf(loaded.report, sizeof loaded.report, format, detail);
    if (length < 0) loaded.report[0] = '\0';
  };
  if (!readable(path)) {
    return say("CUDA is not available: there is no %s; it is built where nvcc is found",
               path.c_str());
  }
  // It stays loaded: kernels cannot be taken out of a running process.
  void* const library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr)
    return say("CUDA is not available: the library does not load (%s)", dlerror());
  const auto function = reinterpret_cast<BackendFunction>(dlsym(library, kBackendSymbol));
  const Backend* const backend = function == nullptr ? nullptr : function();
  if (backend == nullptr || backend->version != kBackendVersion)
    return say("CUDA is not available: %s belongs to another build", path.c_str());
  int32_t count = 0;
  if (const cov_status status = backend->count(&count); status.code != COV_OK)
    return say("CUDA is not available: %s", status.message);
  cov_device_info first{};
  if (const cov_status status = backend->info(0, &first); status.code != COV_OK)
    return say("CUDA is not available: %s", status.message);
  loaded.backend = backend;
  loaded.count = count;
  std::snprintf(loaded.report, sizeof loaded.report, "%d CUDA device%s: %s%s", count,
                count == 1 ? "" : "s", first.name, count == 1 ? "" : " and others");
}

const Loaded& loaded() {
  static const Loaded once = [] {
    Loaded result;
    try {
      load(result);
    } catch (const std::bad_alloc&) {
      std::snprintf(result.report, sizeof result.report,
                    "CUDA is not available: no memory to look for its library");
    }
    return result;
  }();
  return once;
}

}  // namespace

const Backend* backend() { return loaded().backend; }

cov_status unavailable() { return cov_error(COV_UNSUPPORTED, "%s", loaded().report); }

}  // namespace covenant::device

using covenant::device::backend;
using covenant::device::loaded;
using covenant::device::unavailable;

int32_t cov_device_count(void) { return loaded().count; }

const char* cov_device_report(void) { return loaded().report; }

cov_status cov_device_info_at(int32_t index, cov_device_info* info) {
  if (backend() == nullptr) return unavailable();
  if (index < 0 || index >= cov_device_count()) {
    return cov_error(COV_OUT_OF_RANGE, "there is no CUDA device %d; there are %d", index,
                     cov_device_count());
  }
  return backend()->info(index, info);
}
