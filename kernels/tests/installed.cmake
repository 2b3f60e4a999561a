# Installs the library of a build into a folder of its own, compiles an example with that and nothing
# else, and runs it: cmake -DBUILD=... -DCOMPILER=... -DLIBRARY=... -P installed.cmake
set(prefix ${BUILD}/installed)
get_filename_component(kernels ${CMAKE_CURRENT_LIST_DIR} DIRECTORY)

function(run)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE failed)
  if(failed)
    message(FATAL_ERROR "Failed: ${ARGN}")
  endif()
endfunction()

file(REMOVE_RECURSE ${prefix})
run(${CMAKE_COMMAND} --install ${BUILD} --prefix ${prefix})
run(${COMPILER} -std=c++20 -Wall -I${prefix}/include ${kernels}/examples/train.cc ${prefix}/${LIBRARY}
  -lpthread -ldl -o ${prefix}/train)
run(${prefix}/train ${kernels}/README.md 20)
