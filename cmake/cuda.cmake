# Finds nvcc (of a system toolkit, or of the PyPI wheels) and defines trtinfer_cudart, the static CUDA runtime.
# find_package(CUDAToolkit) is not used: the wheels have no unversioned libcudart.so, which it asks for.
set(TRTINFER_CUDA_TOOLKIT auto CACHE STRING "Where nvcc comes from: auto (system, else pypi), system or pypi")
set_property(CACHE TRTINFER_CUDA_TOOLKIT PROPERTY STRINGS auto system pypi)
set(oldest_nvcc 12.8)  # the first that knows sm_100 and sm_120

# Machine code for every supported GPU generation, and PTX of the last for those to come.
set(TRTINFER_CUDA_ARCHITECTURES "75-real;80-real;86-real;89-real;90-real;100-real;120"
    CACHE STRING "CMAKE_CUDA_ARCHITECTURES of the CUDA sources (one, as 90, for a quick build)")
if(DEFINED ENV{TRTINFER_CUDA_ARCHITECTURES})
  set(TRTINFER_CUDA_ARCHITECTURES "$ENV{TRTINFER_CUDA_ARCHITECTURES}")
endif()

# Sets ${result} to the newest-enough nvcc of the system, or to an empty string.
function(find_system_nvcc result)
  set(${result} "" PARENT_SCOPE)
  find_program(TRTINFER_SYSTEM_NVCC nvcc NO_CACHE
    HINTS "$ENV{CUDA_HOME}/bin" "$ENV{CUDA_PATH}/bin" PATHS /usr/local/cuda/bin)
  if(DEFINED ENV{CUDACXX})
    set(TRTINFER_SYSTEM_NVCC "$ENV{CUDACXX}")
  endif()
  if(NOT TRTINFER_SYSTEM_NVCC)
    return()
  endif()
  execute_process(COMMAND "${TRTINFER_SYSTEM_NVCC}" --version OUTPUT_VARIABLE text ERROR_QUIET)
  string(REGEX MATCH "release ([0-9.]+)" _ "${text}")
  if("${CMAKE_MATCH_1}" VERSION_GREATER_EQUAL ${oldest_nvcc})
    set(${result} "${TRTINFER_SYSTEM_NVCC}" PARENT_SCOPE)
  else()
    message(STATUS "trtinfer: ${TRTINFER_SYSTEM_NVCC} is release '${CMAKE_MATCH_1}', older than ${oldest_nvcc}")
  endif()
endfunction()

# Sets ${result} to the folder nvidia/cu13 of the PyPI wheels that the building Python sees, or to an empty string.
function(find_pypi_toolkit result)
  find_package(Python 3.10 REQUIRED COMPONENTS Interpreter)
  set(code "import importlib.util as u, os"
    "s = u.find_spec('nvidia') and u.find_spec('nvidia.cu13')"
    "r = [p for p in (s.submodule_search_locations if s else []) if os.path.exists(p + '/bin/nvcc')]"
    "print(r[0] if r else '', end='')")
  list(JOIN code "\n" code)
  execute_process(COMMAND "${Python_EXECUTABLE}" -c "${code}" OUTPUT_VARIABLE root)
  set(${result} "${root}" PARENT_SCOPE)
endfunction()

if(TRTINFER_CUDA_TOOLKIT MATCHES "^(auto|system)$")
  find_system_nvcc(nvcc)
endif()
if(NOT nvcc AND TRTINFER_CUDA_TOOLKIT MATCHES "^(auto|pypi)$")
  find_pypi_toolkit(pypi_root)
  if(pypi_root)
    set(nvcc "${pypi_root}/bin/nvcc")
    # The profile of this nvcc names lib64, the wheels have lib.
    string(APPEND CMAKE_CUDA_FLAGS " -L${pypi_root}/lib")
  endif()
endif()
if(NOT nvcc)
  message(FATAL_ERROR
    "trtinfer: no nvcc of CUDA ${oldest_nvcc} or newer was found (TRTINFER_CUDA_TOOLKIT=${TRTINFER_CUDA_TOOLKIT}, "
    "processor ${CMAKE_HOST_SYSTEM_PROCESSOR}). Install a CUDA toolkit or set CUDACXX; or, on x86_64 and aarch64 Linux, "
    "pip install the nvidia-* packages that pyproject.toml lists under build-system.requires; "
    "or build for the CPU only: CMAKE_ARGS=-DTRTINFER_CUDA=OFF pip install .")
endif()
message(STATUS "trtinfer: nvcc is ${nvcc}, for ${TRTINFER_CUDA_ARCHITECTURES}")

set(CMAKE_CUDA_COMPILER "${nvcc}")
set(CMAKE_CUDA_ARCHITECTURES "${TRTINFER_CUDA_ARCHITECTURES}")
set(CMAKE_CUDA_STANDARD 20)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
set(CMAKE_CUDA_EXTENSIONS OFF)
set(CMAKE_CUDA_VISIBILITY_PRESET hidden)
set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
string(APPEND CMAKE_CUDA_FLAGS " --threads 0")  # the architectures of one file in parallel
enable_language(CUDA)

find_library(TRTINFER_CUDART_STATIC cudart_static NO_CACHE NO_DEFAULT_PATH REQUIRED
  HINTS "${pypi_root}/lib" ${CMAKE_CUDA_IMPLICIT_LINK_DIRECTORIES})
add_library(trtinfer_cudart INTERFACE)
target_include_directories(trtinfer_cudart SYSTEM INTERFACE ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES})
target_link_libraries(trtinfer_cudart INTERFACE ${TRTINFER_CUDART_STATIC} rt)
