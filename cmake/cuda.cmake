# Finds nvcc (a system toolkit, or the compiler of the PyPI wheels) and defines trtinfer_cudart, the static CUDA runtime.
set(TRTINFER_CUDA_TOOLKIT auto CACHE STRING "Where nvcc comes from: auto (system, else pypi), system or pypi")
set_property(CACHE TRTINFER_CUDA_TOOLKIT PROPERTY STRINGS auto system pypi)

# Machine code for every supported GPU generation, and PTX of the last for those to come.
set(TRTINFER_CUDA_ARCHITECTURES "75-real;80-real;86-real;89-real;90-real;100-real;120"
    CACHE STRING "CMAKE_CUDA_ARCHITECTURES of the CUDA sources (one, as 90, for a quick build)")
if(DEFINED ENV{TRTINFER_CUDA_ARCHITECTURES})
  set(TRTINFER_CUDA_ARCHITECTURES "$ENV{TRTINFER_CUDA_ARCHITECTURES}")
endif()
set(CMAKE_CUDA_ARCHITECTURES "${TRTINFER_CUDA_ARCHITECTURES}")

set(CMAKE_CUDA_STANDARD 20)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
set(CMAKE_CUDA_EXTENSIONS OFF)
set(CMAKE_CUDA_VISIBILITY_PRESET hidden)
set(CMAKE_CUDA_RUNTIME_LIBRARY Static)

enable_language(CUDA)

find_library(TRTINFER_CUDART_STATIC cudart_static
  HINTS ${CMAKE_CUDA_IMPLICIT_LINK_DIRECTORIES} REQUIRED)
add_library(trtinfer_cudart INTERFACE)
target_include_directories(trtinfer_cudart SYSTEM INTERFACE ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES})
target_link_libraries(trtinfer_cudart INTERFACE ${TRTINFER_CUDART_STATIC} rt)
