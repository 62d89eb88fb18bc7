// The CUDA operator as a library for the CPU execution provider, with settings for the tests.
#define LIME_PROVIDER "CPUExecutionProvider"
#include "../../../../runtime/native/cuda/operators.cu"

// `order` 0 runs threads and blocks in numerical order; any other value seeds a random order. `multiprocessors` is the
// number that kernels created from now on see. `capturing` is what launches see as the state of their stream.
LIME_EXPORT void OnHost(unsigned order, int multiprocessors, int capturing) {
  on_host::seed = order;
  on_host::multiprocessors = multiprocessors;
  on_host::capturing = capturing;
}
LIME_EXPORT long OnHostLaunches() { return on_host::launches; }
LIME_EXPORT long OnHostBlocks() { return on_host::blocks; }
