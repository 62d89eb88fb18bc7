// The CUDA operator as a library for the CPU execution provider, with knobs for the tests.
#define LIME_PROVIDER "CPUExecutionProvider"
#include "../../runtime/native/cuda/operators.cu"

// `order` 0: threads and blocks in their own order; otherwise one drawn from it. Kernels made from now on find that
// many multiprocessors. Launches find their stream `capturing` or not.
LIME_EXPORT void OnHost(unsigned order, int multiprocessors, int capturing) {
  on_host::seed = order;
  on_host::multiprocessors = multiprocessors;
  on_host::capturing = capturing;
}
LIME_EXPORT long OnHostLaunches() { return on_host::launches; }
LIME_EXPORT long OnHostBlocks() { return on_host::blocks; }
