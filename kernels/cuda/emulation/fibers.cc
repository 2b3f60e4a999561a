// Blocks, warps and barriers of the emulation.
#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <numeric>
#include <string_view>
#include <vector>

#include "emulation/emulation.h"
#include "emulation/switch.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace covenant::emulation {
namespace {

constexpr size_t kStackBytes = 256 << 10;
constexpr unsigned kThreadsMax = 1024;
constexpr size_t kSharedBytesMax = 227 << 10;

[[noreturn]] void fail(const char* sentence, const Position& where) {
  std::fprintf(stderr, "emulated kernel, block (%u, %u, %u), thread (%u, %u, %u): %s\n",
               where.block_index.x, where.block_index.y, where.block_index.z,
               where.thread_index.x, where.thread_index.y, where.thread_index.z, sentence);
  std::abort();
}

}  // namespace

// One copy that is under way.
struct Copy {
  void* to;
  const void* from;
  size_t bytes, taken;
  uint64_t group;
};

struct Thread {
  enum class State { kReady, kAtWarp, kAtBlock, kDone };
  Position position;
  State state = State::kDone;
  void* stack_pointer = nullptr;
  void* fake_stack = nullptr;
  // What it asked its warp for, and the answer.
  WarpOperation operation = WarpOperation::kSync;
  uint32_t mask = 0;
  uint64_t operand = 0;
  unsigned source = 0;
  uint64_t result = 0;
  bool predicate = false;
  std::vector<Copy> copies;
  uint64_t groups = 0;  // committed
};

namespace {

// Stacks, mapped once; pages that no kernel touches cost nothing.
class Stacks {
 public:
  Stacks() {
    base_ = static_cast<char*>(mmap(nullptr, kThreadsMax * kStackBytes, PROT_READ | PROT_WRITE,
                                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (base_ == MAP_FAILED) {
      std::perror("stacks of emulated threads");
      std::abort();
    }
    // An overflow hits a guard page, not the neighbour.
    for (unsigned i = 0; i < kThreadsMax; ++i) mprotect(base_ + i * kStackBytes, 4096, PROT_NONE);
  }
  char* bottom(size_t index) const { return base_ + index * kStackBytes; }
  char* top(size_t index) const { return bottom(index) + kStackBytes; }

 private:
  char* base_;
};

class Machine {
 public:
  void run_grid(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& kernel);
  unsigned block_barrier(bool predicate);
  uint64_t warp(WarpOperation operation, uint32_t mask, uint64_t operand, unsigned source);
  void copy_async(void* to, const void* from, size_t bytes, size_t taken);
  void copy_async_commit() { ++running_->groups; }
  void copy_async_wait(unsigned left);
  Thread* running() const { return running_; }
  unsigned lane() const { return static_cast<unsigned>(running_ - threads_.data()) % 32; }
  void* shared() { return shared_.data() + (128 - reinterpret_cast<uintptr_t>(shared_.data()) % 128); }

 private:
  static void enter();
  void start_block(uint3 index, dim3 grid, dim3 block);
  void run_block();
  bool run_warp(size_t first, size_t end);
  void resume(Thread& thread);
  void yield();
  bool complete_warp(size_t first, uint32_t mask);
  void order(std::vector<size_t>& list);
  uint64_t noise();

  std::mutex one_grid_;
  Stacks stacks_;
  std::vector<Thread> threads_;
  std::vector<char> shared_;
  std::vector<size_t> warp_order_;
  const std::function<void()>* kernel_ = nullptr;
  Thread* running_ = nullptr;
  void* scheduler_ = nullptr;
  void* scheduler_fake_stack_ = nullptr;
  const void* scheduler_bottom_ = nullptr;
  size_t scheduler_bytes_ = 0;
  unsigned waiting_ = 0;  // at the block's barrier
  unsigned agreeing_ = 0;
  unsigned barrier_result_ = 0;
  uint64_t shuffle_state_ = 0x9e3779b97f4a7c15ull;
};

Machine& machine() {
  static Machine* const one = new Machine;  // kernels may run while the program ends
  return *one;
}

enum class Order { kAscending, kReverse, kShuffle };

// As the environment says.
Order wanted_order() {
  static const Order wanted = [] {
    const char* const name = std::getenv("COVENANT_EMULATION_ORDER");
    if (name != nullptr && std::string_view(name) == "reverse") return Order::kReverse;
    if (name != nullptr && std::string_view(name) == "shuffle") return Order::kShuffle;
    return Order::kAscending;
  }();
  return wanted;
}

uint64_t Machine::noise() {
  shuffle_state_ = shuffle_state_ * 6364136223846793005ull + 1442695040888963407ull;
  return shuffle_state_ >> 33;
}

void Machine::order(std::vector<size_t>& list) {
  if (wanted_order() == Order::kReverse) std::reverse(list.begin(), list.end());
  if (wanted_order() != Order::kShuffle) return;
  for (size_t i = list.size(); i > 1; --i) std::swap(list[i - 1], list[noise() % i]);
}

// First frame of every fiber.
void Machine::enter() {
  Machine& self = machine();
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &self.scheduler_bottom_, &self.scheduler_bytes_);
#endif
  (*self.kernel_)();
  if (!self.running_->copies.empty())
    fail("ends before its copies are made", self.running_->position);
  self.running_->state = Thread::State::kDone;
  self.yield();
}

void Machine::resume(Thread& thread) {
  running_ = &thread;
#if defined(__SANITIZE_ADDRESS__)
  const auto index = static_cast<size_t>(&thread - threads_.data());
  __sanitizer_start_switch_fiber(&scheduler_fake_stack_, stacks_.bottom(index), kStackBytes);
#endif
  covenant_emulation_switch(&scheduler_, thread.stack_pointer);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(scheduler_fake_stack_, nullptr, nullptr);
#endif
}

// Back to the scheduler.
void Machine::yield() {
  Thread& self = *running_;
#if defined(__SANITIZE_ADDRESS__)
  const bool done = self.state == Thread::State::kDone;
  __sanitizer_start_switch_fiber(done ? nullptr : &self.fake_stack, scheduler_bottom_,
                                 scheduler_bytes_);
#endif
  covenant_emulation_switch(&self.stack_pointer, scheduler_);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(self.fake_stack, &scheduler_bottom_, &scheduler_bytes_);
#endif
}

void Machine::start_block(uint3 index, dim3 grid, dim3 block) {
  std::memset(shared_.data(), 0xcd, shared_.size());
  size_t at = 0;
  for (unsigned z = 0; z < block.z; ++z) {
    for (unsigned y = 0; y < block.y; ++y) {
      for (unsigned x = 0; x < block.x; ++x, ++at) {
        Thread& thread = threads_[at];
        thread.position = {{x, y, z}, index, block, grid};
        thread.state = Thread::State::kReady;
        thread.stack_pointer = first_stack(stacks_.top(at), enter);
      }
    }
  }
  waiting_ = 0;
  agreeing_ = 0;
}

// Runs the threads of a warp until each waits for the block or is done. False if nothing moved.
bool Machine::run_warp(size_t first, size_t end) {
  std::vector<size_t> lanes(end - first);
  std::iota(lanes.begin(), lanes.end(), first);
  order(lanes);
  bool moved = false;
  for (bool again = true; again;) {
    again = false;
    for (const size_t i : lanes) {
      if (threads_[i].state != Thread::State::kReady) continue;
      resume(threads_[i]);
      again = moved = true;
    }
  }
  return moved;
}

void Machine::run_block() {
  const size_t count = threads_.size();
  for (;;) {
    bool moved = false;
    for (const size_t warp : warp_order_) {
      moved |= run_warp(warp * 32, std::min(count, warp * 32 + 32));
    }
    if (moved) continue;
    for (const Thread& thread : threads_) {
      if (thread.state == Thread::State::kAtWarp)
        fail("waits for lanes of its warp that never come", thread.position);
      if (thread.state == Thread::State::kAtBlock)
        fail("waits at a barrier that other threads of the block never reach", thread.position);
    }
    return;
  }
}

void Machine::run_grid(dim3 grid, dim3 block, size_t shared_bytes,
                       const std::function<void()>& kernel) {
  const std::lock_guard<std::mutex> lock(one_grid_);
  const uint64_t count = static_cast<uint64_t>(block.x) * block.y * block.z;
  const Position nowhere{};
  if (count == 0 || count > kThreadsMax) fail("a block has 1 to 1024 threads", nowhere);
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.y > 65535 || grid.z > 65535 ||
      grid.x > 0x7fffffffu)
    fail("the grid is empty or larger than a GPU's", nowhere);
  if (shared_bytes > kSharedBytesMax) fail("more shared memory than an SM has", nowhere);
  threads_.assign(count, Thread{});
  shared_.resize(shared_bytes + 256);
  kernel_ = &kernel;
  const uint64_t blocks = static_cast<uint64_t>(grid.x) * grid.y * grid.z;
  std::vector<size_t> block_order(blocks);
  std::iota(block_order.begin(), block_order.end(), 0);
  order(block_order);
  for (const size_t b : block_order) {
    warp_order_.resize((count + 31) / 32);
    std::iota(warp_order_.begin(), warp_order_.end(), 0);
    order(warp_order_);
    const uint3 index{static_cast<unsigned>(b % grid.x), static_cast<unsigned>(b / grid.x % grid.y),
                      static_cast<unsigned>(b / grid.x / grid.y)};
    start_block(index, grid, block);
    run_block();
  }
  running_ = nullptr;
}

unsigned Machine::block_barrier(bool predicate) {
  Thread& self = *running_;
  self.state = Thread::State::kAtBlock;
  ++waiting_;
  agreeing_ += predicate ? 1 : 0;
  if (waiting_ == threads_.size()) {
    barrier_result_ = agreeing_;
    waiting_ = agreeing_ = 0;
    for (Thread& thread : threads_) {
      thread.state = Thread::State::kReady;
      thread.result = barrier_result_;
    }
  }
  yield();
  return static_cast<unsigned>(self.result);
}

void make(const Copy& copy) {
  std::memcpy(copy.to, copy.from, copy.taken);
  std::memset(static_cast<char*>(copy.to) + copy.taken, 0, copy.bytes - copy.taken);
}

void Machine::copy_async(void* to, const void* from, size_t bytes, size_t taken) {
  Thread& self = *running_;
  const auto misplaced = [=](const void* at) { return reinterpret_cast<uintptr_t>(at) % bytes != 0; };
  if (misplaced(to) || (taken > 0 && misplaced(from)))
    fail("copies from or to a place that is not aligned to the copy", self.position);
  const Copy copy = {to, from, bytes, taken, self.groups};
  const Order wanted = wanted_order();
  if (wanted == Order::kReverse || (wanted == Order::kShuffle && noise() % 2 == 0))
    make(copy);
  else
    self.copies.push_back(copy);
}

void Machine::copy_async_wait(unsigned left) {
  std::vector<Copy>& copies = running_->copies;
  const uint64_t groups = running_->groups;
  size_t made = 0;
  for (; made < copies.size() && copies[made].group + left < groups; ++made) make(copies[made]);
  copies.erase(copies.begin(), copies.begin() + static_cast<std::ptrdiff_t>(made));
}

uint64_t combine(WarpOperation operation, uint64_t a, uint64_t b) {
  const auto x = static_cast<uint32_t>(a);
  const auto y = static_cast<uint32_t>(b);
  switch (operation) {
    case WarpOperation::kAdd:
      return x + y;
    case WarpOperation::kMin:
      return std::min(x, y);
    case WarpOperation::kMax:
      return std::max(x, y);
    case WarpOperation::kMinSigned:
      return static_cast<uint32_t>(std::min(static_cast<int32_t>(x), static_cast<int32_t>(y)));
    case WarpOperation::kMaxSigned:
      return static_cast<uint32_t>(std::max(static_cast<int32_t>(x), static_cast<int32_t>(y)));
    case WarpOperation::kAnd:
      return x & y;
    case WarpOperation::kOr:
      return x | y;
    default:
      return x ^ y;
  }
}

// Answers all lanes of `mask` if the last of them has arrived.
bool Machine::complete_warp(size_t first, uint32_t mask) {
  Thread* const lanes = &threads_[first];
  const Thread& self = *running_;
  for (uint32_t rest = mask; rest != 0; rest &= rest - 1) {
    const Thread& other = lanes[std::countr_zero(rest)];
    if (other.state == Thread::State::kDone) fail("names a lane that has ended", self.position);
    // A lane may still be at an operation of fewer lanes.
    if (other.state != Thread::State::kAtWarp || other.mask != mask) return false;
    if (other.operation != self.operation)
      fail("lanes of one warp are at different operations", self.position);
  }
  uint64_t all = lanes[std::countr_zero(mask)].operand;
  for (uint32_t rest = mask & (mask - 1); rest != 0; rest &= rest - 1)
    all = combine(self.operation, all, lanes[std::countr_zero(rest)].operand);
  uint32_t ballot = 0;
  for (uint32_t rest = mask; rest != 0; rest &= rest - 1) {
    const int i = std::countr_zero(rest);
    ballot |= (lanes[i].operand != 0 ? 1u : 0u) << i;
  }
  for (uint32_t rest = mask; rest != 0; rest &= rest - 1) {
    Thread& lane = lanes[std::countr_zero(rest)];
    lane.result = all;
    if (lane.operation == WarpOperation::kBallot) lane.result = ballot;
    if (lane.operation == WarpOperation::kShuffle) {
      if (lane.source > 31 || (mask >> lane.source & 1) == 0)
        fail("reads from a lane outside the mask", lane.position);
      lane.result = lanes[lane.source].operand;
    }
    if (lane.operation == WarpOperation::kMatch) {
      lane.result = 0;
      for (uint32_t r = mask; r != 0; r &= r - 1) {
        const int i = std::countr_zero(r);
        if (lanes[i].operand == lane.operand) lane.result |= 1u << i;
      }
    }
  }
  for (uint32_t rest = mask; rest != 0; rest &= rest - 1)
    lanes[std::countr_zero(rest)].state = Thread::State::kReady;
  return true;
}

uint64_t Machine::warp(WarpOperation operation, uint32_t mask, uint64_t operand, unsigned source) {
  Thread& self = *running_;
  const auto index = static_cast<size_t>(running_ - threads_.data());
  const size_t first = index / 32 * 32;
  // The last warp of a block may have fewer lanes; a full mask then means all that exist.
  const size_t lanes = std::min<size_t>(32, threads_.size() - first);
  if (lanes < 32 && mask == 0xffffffffu) mask = (1u << lanes) - 1;
  if ((mask >> (index % 32) & 1) == 0) fail("is not in its own mask", self.position);
  if (lanes < 32 && mask >> lanes != 0) fail("names a lane that does not exist", self.position);
  self.operation = operation;
  self.mask = mask;
  self.operand = operand;
  self.source = source;
  self.state = Thread::State::kAtWarp;
  if (!complete_warp(first, mask)) yield();
  return self.result;
}

}  // namespace

const Position& position() { return machine().running()->position; }
unsigned lane() { return machine().lane(); }
void* dynamic_shared() { return machine().shared(); }
unsigned block_barrier(bool predicate) { return machine().block_barrier(predicate); }
uint64_t warp(WarpOperation operation, uint32_t mask, uint64_t operand, unsigned source) {
  return machine().warp(operation, mask, operand, source);
}
void copy_async(void* to, const void* from, size_t bytes, size_t taken) {
  machine().copy_async(to, from, bytes, taken);
}
void copy_async_commit() { machine().copy_async_commit(); }
void copy_async_wait(unsigned left) { machine().copy_async_wait(left); }
void run_grid(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& kernel) {
  machine().run_grid(grid, block, shared_bytes, kernel);
}

}  // namespace covenant::emulation
