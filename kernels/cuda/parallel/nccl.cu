// NCCL, loaded when a model asks for it. Only calls that have been stable since NCCL 2.10 are declared here.
#include <dlfcn.h>

#include <cstdlib>

#include "parallel/communicator.h"

namespace covenant::cuda {
namespace {

using Result = int;
constexpr Result kSuccess = 0;
constexpr int kInt8 = 0, kFloat32 = 7;  // ncclDataType_t
constexpr int kSum = 0;                 // ncclRedOp_t
constexpr int kVersionMin = 21000;

struct Library {
  Result (*get_version)(int* version);
  const char* (*get_error_string)(Result result);
  Result (*comm_init_all)(void** comms, int count, const int* devices);
  Result (*comm_destroy)(void* comm);
  Result (*comm_abort)(void* comm);
  Result (*group_start)();
  Result (*group_end)();
  Result (*all_reduce)(const void* from, void* to, size_t count, int type, int operation, void* comm,
                       void* stream);
  Result (*send)(const void* from, size_t count, int type, int peer, void* comm, void* stream);
  Result (*receive)(void* to, size_t count, int type, int peer, void* comm, void* stream);
  int version = 0;
  std::string reason;  // why it cannot be used
};

std::string version_name(int version) {
  return std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100) + "." +
         std::to_string(version % 100);
}

Library load() {
  Library library{};
  const char* const named = std::getenv("COVENANT_NCCL_LIBRARY");
  const char* const file = named != nullptr && *named != '\0' ? named : "libnccl.so.2";
  // It stays loaded: communicators may live as long as the process.
  void* const handle = dlopen(file, RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    const char* const error = dlerror();
    library.reason = std::string(file) + " does not load (" + (error == nullptr ? "" : error) + ")";
    return library;
  }
  const auto find = [&](auto& function, const char* name) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(handle, name));
    if (function == nullptr && library.reason.empty())
      library.reason = std::string(file) + " has no " + name + "; NCCL 2.10 or newer is needed";
  };
  find(library.get_version, "ncclGetVersion");
  find(library.get_error_string, "ncclGetErrorString");
  find(library.comm_init_all, "ncclCommInitAll");
  find(library.comm_destroy, "ncclCommDestroy");
  find(library.comm_abort, "ncclCommAbort");
  find(library.group_start, "ncclGroupStart");
  find(library.group_end, "ncclGroupEnd");
  find(library.all_reduce, "ncclAllReduce");
  find(library.send, "ncclSend");
  find(library.receive, "ncclRecv");
  if (!library.reason.empty()) return library;
  if (library.get_version(&library.version) != kSuccess || library.version < kVersionMin)
    library.reason = std::string(file) + " is NCCL " +
                     (library.version < 10000 ? "2.8 or older" : version_name(library.version)) +
                     "; 2.10 or newer is needed";
  return library;
}

const Library& nccl() {
  static const Library once = load();
  return once;
}

class Nccl : public Communicator {
 public:
  explicit Nccl(const std::vector<Member>& members) : members_(members), comms_(members.size()) {
    std::vector<int> devices;
    for (const Member& member : members) devices.push_back(member.device->index());
    check(nccl().comm_init_all(comms_.data(), static_cast<int>(devices.size()), devices.data()),
          "ncclCommInitAll", COV_UNSUPPORTED);
  }

  ~Nccl() override {
    for (void* const comm : comms_)
      if (!broken_) (void)nccl().comm_destroy(comm);
  }

  void reserve(uint64_t) override {}

  void all_reduce(const std::vector<float*>& buffers, uint64_t count) override {
    if (count == 0) return;
    group("ncclAllReduce", [&] {
      Result result = kSuccess;
      for (size_t i = 0; i < members_.size() && result == kSuccess; ++i) {
        members_[i].device->activate();
        result = nccl().all_reduce(buffers[i], buffers[i], count, kFloat32, kSum, comms_[i],
                                   members_[i].device->stream().handle);
      }
      return result;
    });
  }

  void transfer(size_t from, const void* source, size_t to, void* target,
                uint64_t bytes) override {
    if (bytes == 0) return;
    group("ncclSend", [&] {
      members_[from].device->activate();
      const Result sent = nccl().send(source, bytes, kInt8, static_cast<int>(to), comms_[from],
                                      members_[from].side->stream().handle);
      if (sent != kSuccess) return sent;
      members_[to].device->activate();
      return nccl().receive(target, bytes, kInt8, static_cast<int>(from), comms_[to],
                            members_[to].side->stream().handle);
    });
  }

 private:
  static void check(Result result, const char* what, cov_code code) {
    if (result != kSuccess) raise(code, "NCCL: %s: %s", what, nccl().get_error_string(result));
  }

  // One thread drives all members, so their calls belong together. What has failed once is given up.
  template <typename Body>
  void group(const char* what, const Body& body) {
    if (broken_) raise(COV_INTERNAL, "NCCL failed in an earlier call");
    Result result = nccl().group_start();
    if (result == kSuccess) {
      result = body();
      const Result ended = nccl().group_end();
      if (result == kSuccess) result = ended;
    }
    if (result == kSuccess) return;
    broken_ = true;
    for (void* const comm : comms_) (void)nccl().comm_abort(comm);
    check(result, what, COV_INTERNAL);
  }

  std::vector<Member> members_;
  std::vector<void*> comms_;
  bool broken_ = false;
};

}  // namespace

bool nccl_available(std::string* report) {
  *report = nccl().reason.empty() ? "NCCL " + version_name(nccl().version) : nccl().reason;
  return nccl().reason.empty();
}

std::unique_ptr<Communicator> make_nccl(const std::vector<Member>& members) {
  return std::make_unique<Nccl>(members);
}

}  // namespace covenant::cuda
