// Kernels with faults that the host build must reveal. Each sums 0 .. 63 in a block of 64 threads.
#include "cuda_runtime.h"

namespace {

enum Fault { kNone, kNoBarrier, kDivergentBarrier, kUnwritten, kAbsentLane };

struct Task {
  Fault fault;
  float* out;
};

__global__ void add_up(const __grid_constant__ Task task) {
  LIME_SHARED(shared);
  float* values = reinterpret_cast<float*>(shared);
  const unsigned i = threadIdx.x;
  if (task.fault != kUnwritten || i != 7) values[i] = float(i);
  if (task.fault == kDivergentBarrier && i == 7) return;
  if (task.fault != kNoBarrier) __syncthreads();
  float sum = values[(i + 32) % 64] + values[i];
  if (task.fault == kAbsentLane && i == 7) return;
  for (int other = 16; other > 0; other /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, other);
  if (i == 0) *task.out = sum;
}

}  // namespace

// The sum, or -1 if the launch failed.
extern "C" __attribute__((visibility("default"))) float FaultySum(int fault, unsigned order) {
  float out = 0;
  Task task{Fault(fault), &out};
  void* arguments[] = {&task};
  on_host::seed = order;
  return cudaLaunchKernel(add_up, dim3(1), dim3(64), arguments, 256, nullptr) == cudaSuccess ? out : -1;
}
