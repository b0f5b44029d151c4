# Read by llama-cpp-python's build right after its project() call: CMAKE_PROJECT_llama_cpp_INCLUDE, set by dev.py.
#
# Its package has no use for llama.cpp's `common` (argument parsing, chat templates, HTTP: half of all there is to
# compile for a CPU), but sets LLAMA_BUILD_COMMON in CMake's cache by force. A variable that is not in the cache goes
# before one that is (policies CMP0126 and CMP0077).
set(LLAMA_BUILD_COMMON OFF)
