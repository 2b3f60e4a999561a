#include "emulation/memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <map>

namespace covenant::emulation {
namespace {

constexpr size_t kDefaultBytes = size_t{8} << 30;
constexpr int kDevicesMax = 16;
constexpr size_t kPage = 4096;

struct Block {
  size_t bytes;
  int device;
};

std::map<char*, Block> blocks;
size_t used[kDevicesMax];
int opened = -1;

size_t pages(size_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }

void protect(char* base, const Block& block) {
  const bool open = opened < 0 || opened == block.device;
  if (mprotect(base, pages(block.bytes), open ? PROT_READ | PROT_WRITE : PROT_NONE) != 0) std::abort();
}

// A fault in a block is an access from the wrong device; any other takes its usual course.
void on_fault(int signal, siginfo_t* info, void*) {
  char* const at = static_cast<char*>(info->si_addr);
  for (const auto& [base, block] : blocks) {
    if (at < base || at >= base + pages(block.bytes)) continue;
    constexpr char kSentence[] =
        "emulated kernel or copy: touches memory that belongs to another device\n";
    if (write(STDERR_FILENO, kSentence, sizeof kSentence - 1) < 0) std::abort();
    std::abort();
  }
  std::signal(signal, SIG_DFL);
}

}  // namespace

int device_count() {
  static const int count = [] {
    const char* const wanted = std::getenv("COVENANT_EMULATED_DEVICES");
    const int found = wanted == nullptr ? 1 : std::clamp(std::atoi(wanted), 1, kDevicesMax);
    if (found > 1) {
      struct sigaction action{};
      action.sa_sigaction = on_fault;
      action.sa_flags = SA_SIGINFO;
      sigaction(SIGSEGV, &action, nullptr);
    }
    return found;
  }();
  return count;
}

size_t total_bytes() {
  const char* const wanted = std::getenv("COVENANT_EMULATION_MEMORY_BYTES");
  return wanted == nullptr ? kDefaultBytes : std::strtoull(wanted, nullptr, 10);
}

size_t used_bytes(int device) { return used[device]; }

void* allocate(int device, size_t bytes) {
  if (bytes > total_bytes() || used[device] > total_bytes() - bytes) return nullptr;
  char* base = nullptr;
  if (device_count() == 1) {
    // A sanitizer then sees where a block ends.
    base = static_cast<char*>(std::aligned_alloc(256, (bytes + 255) / 256 * 256));
  } else {
    void* const mapped = mmap(nullptr, pages(bytes), PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    base = mapped == MAP_FAILED ? nullptr : static_cast<char*>(mapped);
  }
  if (base == nullptr) return nullptr;
  // Memory of a GPU holds whatever was there before.
  std::memset(base, 0xcd, bytes);
  const Block& block = blocks[base] = {bytes, device};
  used[device] += bytes;
  if (device_count() > 1) protect(base, block);
  return base;
}

bool release(void* pointer, int* device) {
  const auto found = blocks.find(static_cast<char*>(pointer));
  if (found == blocks.end()) return false;
  *device = found->second.device;
  used[*device] -= found->second.bytes;
  const size_t bytes = found->second.bytes;
  blocks.erase(found);
  if (device_count() == 1)
    std::free(pointer);
  else
    munmap(pointer, pages(bytes));
  return true;
}

int owner(const void* pointer, size_t bytes) {
  const auto* const at = static_cast<const char*>(pointer);
  auto next = blocks.upper_bound(const_cast<char*>(at));
  if (next == blocks.begin()) return -1;
  const auto& [base, block] = *--next;
  const size_t shift = static_cast<size_t>(at - base);
  return shift <= block.bytes && bytes <= block.bytes - shift ? block.device : -1;
}

void open_memory(int device) {
  if (device_count() == 1 || opened == device) return;
  opened = device;
  for (const auto& [base, block] : blocks) protect(base, block);
}

}  // namespace covenant::emulation
