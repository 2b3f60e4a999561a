# Compiling with nvcc by custom commands: the options of each file are in plain sight, and it works
# with any generator and with every CUDA from 12.0 on.

# Sets `reason` when nvcc cannot be used. Else sets covenant_cuda_codes (the architectures that this
# nvcc knows), covenant_cuda_gencode and covenant_cudart.
function(covenant_check_nvcc reason)
  execute_process(COMMAND ${COVENANT_NVCC} --list-gpu-code OUTPUT_VARIABLE known ERROR_QUIET
    RESULT_VARIABLE failed)
  if(failed)
    set(${reason} "${COVENANT_NVCC} does not run" PARENT_SCOPE)
    return()
  endif()
  string(REGEX MATCHALL "sm_[0-9]+[a-z]*" known "${known}")
  set(codes)
  set(gencode)
  foreach(architecture ${COVENANT_CUDA_ARCHITECTURES})
    string(REGEX REPLACE "[a-z]$" "" plain ${architecture})
    if(sm_${plain} IN_LIST known)
      list(APPEND codes sm_${architecture})
      list(APPEND gencode "SHELL:-gencode arch=compute_${architecture},code=sm_${architecture}")
    else()
      message(STATUS "CUDA: this nvcc does not know sm_${architecture}")
    endif()
  endforeach()
  if(COVENANT_CUDA_PTX)
    list(APPEND codes "PTX of compute_${COVENANT_CUDA_PTX}")
    list(APPEND gencode
      "SHELL:-gencode arch=compute_${COVENANT_CUDA_PTX},code=compute_${COVENANT_CUDA_PTX}")
  endif()
  # Where the toolkit lies: nvcc may be a link or a wrapper.
  execute_process(COMMAND ${COVENANT_NVCC} --dryrun -x cu /dev/null -o /dev/null
    ERROR_VARIABLE plan OUTPUT_QUIET)
  string(REGEX MATCH "TOP=([^\n]+)" _ "${plan}")
  set(top "${CMAKE_MATCH_1}")
  file(GLOB places "${top}/targets/*/lib")
  find_library(covenant_cudart_library NAMES libcudart_static.a NO_DEFAULT_PATH NO_CACHE
    PATHS ${places} "${top}/lib64" "${top}/lib")
  if(NOT covenant_cudart_library)
    set(${reason} "libcudart_static.a was not found under ${top}" PARENT_SCOPE)
    return()
  endif()
  set(covenant_cudart ${covenant_cudart_library} PARENT_SCOPE)
  set(covenant_cuda_codes "${codes}" PARENT_SCOPE)
  list(TRANSFORM gencode REPLACE "^SHELL:" "")
  string(REPLACE ";" " " gencode "${gencode}")
  separate_arguments(gencode)
  set(covenant_cuda_gencode "${gencode}" PARENT_SCOPE)
endfunction()

# Adds the rule that makes the object of one .cu file.
function(covenant_nvcc_object source object)
  file(RELATIVE_PATH name ${CMAKE_CURRENT_SOURCE_DIR} ${source})
  set(out ${CMAKE_CURRENT_BINARY_DIR}/nvcc/${name}.o)
  get_filename_component(folder ${out} DIRECTORY)
  file(MAKE_DIRECTORY ${folder})
  set(includes)
  foreach(include ${cuda_includes})
    list(APPEND includes -I${include})
  endforeach()
  get_source_file_property(own ${source} COVENANT_NVCC_OPTIONS)
  if(NOT own)
    set(own)
  endif()
  # As in the CPU code, products and sums are fused only where the source says fma; divisions and
  # roots are rounded correctly and subnormals kept, which is nvcc's default.
  add_custom_command(OUTPUT ${out}
    COMMAND ${COVENANT_NVCC} -ccbin ${CMAKE_CXX_COMPILER} -std=c++20 -O3 --fmad=false
      ${covenant_cuda_gencode} ${includes} ${own}
      -Xcompiler=-fPIC,-fvisibility=hidden,-ffp-contract=off,-Wall,-Wextra
      -MD -MF ${out}.d -MT ${out} -c ${source} -o ${out}
    DEPENDS ${source} DEPFILE ${out}.d VERBATIM
    COMMENT "nvcc ${name}")
  set_source_files_properties(${out} PROPERTIES EXTERNAL_OBJECT ON GENERATED ON)
  set(${object} ${out} PARENT_SCOPE)
endfunction()
