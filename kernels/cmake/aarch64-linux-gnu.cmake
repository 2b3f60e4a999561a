# Cross build for 64-bit ARM on Linux: cmake -DCMAKE_TOOLCHAIN_FILE=cmake/aarch64-linux-gnu.cmake
# Tests run under an emulator where there is one.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
find_program(COVENANT_EMULATOR NAMES qemu-aarch64 qemu-aarch64-static)
if(COVENANT_EMULATOR)
  set(CMAKE_CROSSCOMPILING_EMULATOR ${COVENANT_EMULATOR} -L /usr/aarch64-linux-gnu)
endif()
