// Switching between fibers: registers that a call preserves, and the stack pointer.
#pragma once

#if defined(__x86_64__) || defined(__aarch64__)

// Saves the running fiber's stack pointer in *save and goes on where `load` was saved.
extern "C" void covenant_emulation_switch(void** save, void* load);

#if defined(__x86_64__)
asm(R"(
.text
.hidden covenant_emulation_switch
.globl covenant_emulation_switch
.type covenant_emulation_switch, @function
covenant_emulation_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size covenant_emulation_switch, . - covenant_emulation_switch
)");

namespace covenant::emulation {
// Stack of a fiber that starts at `entry`, which must not return.
inline void* first_stack(char* top, void (*entry)()) {
  // At the first instruction of a function the stack pointer is 8 below a multiple of 16.
  auto** at = reinterpret_cast<void**>(top - 64);
  for (int i = 0; i < 6; ++i) at[i] = nullptr;
  at[6] = reinterpret_cast<void*>(entry);
  at[7] = nullptr;
  return at;
}
}  // namespace covenant::emulation

#else
asm(R"(
.text
.hidden covenant_emulation_switch
.globl covenant_emulation_switch
.type covenant_emulation_switch, %function
covenant_emulation_switch:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
.size covenant_emulation_switch, . - covenant_emulation_switch
)");

namespace covenant::emulation {
inline void* first_stack(char* top, void (*entry)()) {
  auto** at = reinterpret_cast<void**>(top - 160);
  for (int i = 0; i < 20; ++i) at[i] = nullptr;
  at[11] = reinterpret_cast<void*>(entry);
  return at;
}
}  // namespace covenant::emulation
#endif

#else
#error "The emulation of CUDA kernels knows x86-64 and AArch64"
#endif
