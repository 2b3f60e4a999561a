// Ten calls of NCCL over the emulated devices, strict about what the real ones only suffer from: calls of one
// thread for several devices outside a group, operations that do not match, memory or streams of the wrong
// device. Sums are made in the order of the ranks, once all streams have come to the call.
//
// FAKE_NCCL_VERSION: what ncclGetVersion says. FAKE_NCCL_FAIL: ncclAllReduce fails.
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "emulation/memory.h"
#include "emulation/streams.h"

namespace {

using Stream = covenant_emulated_stream;
using covenant::emulation::open_memory;
using covenant::emulation::owner;

constexpr int kSystemError = 2, kInvalidArgument = 4, kInvalidUsage = 5;

struct Clique {
  std::vector<int> devices;
};

struct Comm {
  std::shared_ptr<Clique> clique;
  int rank;
};

enum class Kind { kAllReduce, kSend, kReceive };

struct Call {
  Kind kind;
  const char* from;
  char* to;
  size_t bytes;
  int peer;
  Comm* comm;
  Stream* stream;
};

int depth = 0;
std::vector<Call> calls;

// What several streams do together, when the last of them has come.
struct Meeting {
  std::vector<bool> arrived;
  bool done = false;
  std::function<void()> work;
};

void meet(const std::vector<Stream*>& streams, std::function<void()> work) {
  auto meeting = std::make_shared<Meeting>();
  meeting->arrived.resize(streams.size());
  meeting->work = std::move(work);
  std::vector<std::pair<Stream*, std::function<bool()>>> entries;
  for (size_t i = 0; i < streams.size(); ++i)
    entries.emplace_back(streams[i], [meeting, i] {
      meeting->arrived[i] = true;
      for (const bool arrived : meeting->arrived)
        if (!arrived) return false;
      if (!meeting->done) meeting->work();
      meeting->done = true;
      return true;
    });
  covenant::emulation::queue_together(entries);
}

void sum(const std::vector<Call>& parts) {
  open_memory(-1);
  std::vector<float> total(parts[0].bytes / sizeof(float));
  for (const Call& part : parts) {
    const auto* const values = reinterpret_cast<const float*>(part.from);
    for (size_t i = 0; i < total.size(); ++i) total[i] = &part == &parts[0] ? values[i] : total[i] + values[i];
  }
  for (const Call& part : parts) std::memcpy(part.to, total.data(), part.bytes);
}

// Every rank of the clique of calls[0], in order, or it does not match.
int run_all_reduce() {
  const Clique* const clique = calls[0].comm->clique.get();
  std::vector<Call> parts;
  std::vector<Stream*> streams;
  for (size_t rank = 0; rank < clique->devices.size(); ++rank) {
    bool found = false;
    for (size_t i = 0; i < calls.size() && !found; ++i) {
      const Call& call = calls[i];
      if (call.comm->clique.get() != clique || call.comm->rank != static_cast<int>(rank)) continue;
      if (call.kind != Kind::kAllReduce || (!parts.empty() && call.bytes != parts[0].bytes))
        return kInvalidUsage;
      parts.push_back(call);
      streams.push_back(call.stream);
      calls.erase(calls.begin() + static_cast<std::ptrdiff_t>(i));
      found = true;
    }
    if (!found) return kInvalidUsage;
  }
  meet(streams, [parts] { sum(parts); });
  return 0;
}

int run_send() {
  const Call first = calls[0];
  for (size_t i = 1; i < calls.size(); ++i) {
    const Call& second = calls[i];
    if (second.comm->clique != first.comm->clique || second.kind == first.kind ||
        second.comm->rank != first.peer || second.peer != first.comm->rank ||
        second.bytes != first.bytes)
      continue;
    const Call send = first.kind == Kind::kSend ? first : second;
    const Call receive = first.kind == Kind::kSend ? second : first;
    calls.erase(calls.begin() + static_cast<std::ptrdiff_t>(i));
    calls.erase(calls.begin());
    meet({send.stream, receive.stream}, [send, receive] {
      open_memory(-1);
      std::memcpy(receive.to, send.from, send.bytes);
    });
    return 0;
  }
  return kInvalidUsage;
}

int add(const Call& call) {
  const Comm& comm = *call.comm;
  const int device = comm.clique->devices[static_cast<size_t>(comm.rank)];
  if (depth == 0 && comm.clique->devices.size() > 1) return kInvalidUsage;
  if (call.stream == nullptr || call.stream->device != device) return kInvalidArgument;
  if (call.from != nullptr && owner(call.from, call.bytes) != device) return kInvalidArgument;
  if (call.to != nullptr && owner(call.to, call.bytes) != device) return kInvalidArgument;
  if (call.kind != Kind::kAllReduce &&
      (call.peer < 0 || call.peer >= static_cast<int>(comm.clique->devices.size()) ||
       call.peer == comm.rank))
    return kInvalidArgument;
  calls.push_back(call);
  return 0;
}

size_t size_of(int type) { return type == 0 ? 1 : type == 7 ? 4 : 0; }

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT int ncclGetVersion(int* version) {
  const char* const wanted = std::getenv("FAKE_NCCL_VERSION");
  *version = wanted == nullptr ? 22703 : std::atoi(wanted);
  return 0;
}

EXPORT const char* ncclGetErrorString(int result) {
  return result == kSystemError ? "unhandled system error" : "invalid argument or usage";
}

EXPORT int ncclCommInitAll(void** comms, int count, const int* devices) {
  const auto clique = std::make_shared<Clique>();
  clique->devices.assign(devices, devices + count);
  for (int rank = 0; rank < count; ++rank) comms[rank] = new Comm{clique, rank};
  return 0;
}

EXPORT int ncclCommDestroy(void* comm) {
  delete static_cast<Comm*>(comm);
  return 0;
}

EXPORT int ncclCommAbort(void* comm) { return ncclCommDestroy(comm); }

EXPORT int ncclGroupStart() {
  ++depth;
  return 0;
}

EXPORT int ncclGroupEnd() {
  if (depth == 0) return kInvalidUsage;
  if (--depth > 0) return 0;
  int result = 0;
  while (!calls.empty() && result == 0)
    result = calls[0].kind == Kind::kAllReduce ? run_all_reduce() : run_send();
  calls.clear();
  return result;
}

EXPORT int ncclAllReduce(const void* from, void* to, size_t count, int type, int operation,
                         void* comm, void* stream) {
  if (std::getenv("FAKE_NCCL_FAIL") != nullptr) return kSystemError;
  if (type != 7 || operation != 0) return kInvalidArgument;
  return add({Kind::kAllReduce, static_cast<const char*>(from), static_cast<char*>(to),
              count * sizeof(float), -1, static_cast<Comm*>(comm), static_cast<Stream*>(stream)});
}

EXPORT int ncclSend(const void* from, size_t count, int type, int peer, void* comm, void* stream) {
  if (size_of(type) == 0) return kInvalidArgument;
  return add({Kind::kSend, static_cast<const char*>(from), nullptr, count * size_of(type), peer,
              static_cast<Comm*>(comm), static_cast<Stream*>(stream)});
}

EXPORT int ncclRecv(void* to, size_t count, int type, int peer, void* comm, void* stream) {
  if (size_of(type) == 0) return kInvalidArgument;
  return add({Kind::kReceive, nullptr, static_cast<char*>(to), count * size_of(type), peer,
              static_cast<Comm*>(comm), static_cast<Stream*>(stream)});
}
