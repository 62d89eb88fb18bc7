// Emulates CUDA for the tests: runs a kernel's source on the host. Replaces NVIDIA's header of the same name.
//
// Every thread of a block is a fiber, which runs until it reaches a barrier or exchanges a value within its warp.
// Blocks run one after another. The emulation reveals undefined behaviour of a kernel:
//   order      a seed determines the order of threads and blocks: a missing barrier changes the result with the seed
//   barriers   a barrier that not all threads of a block (or lanes of a warp) reach is an error of the launch
//   memory     shared memory comes from the heap in the size of the launch, so that the address sanitizer watches it,
//              and is filled with NaN before every block; tensors are ONNX Runtime's
// It cannot reveal races within the steps between two barriers, timing, or the rounding of the hardware's exp.
#pragma once
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <random>
#include <type_traits>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __grid_constant__
#define __launch_bounds__(...)
#define LIME_SHARED(name) float4* const name = on_host::shared

using std::max;
using std::min;

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct alignas(16) float4 {
  float x, y, z, w;
};
using cudaStream_t = void*;
enum cudaError_t { cudaSuccess, cudaErrorInvalidConfiguration, cudaErrorLaunchFailure };
enum cudaStreamCaptureStatus { cudaStreamCaptureStatusNone, cudaStreamCaptureStatusActive };
enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount };

inline dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace on_host {

constexpr unsigned kWarp = 32;
constexpr size_t kStack = 256 * 1024;

enum State { kReady, kAtBarrier, kExchanging, kDone };

struct Fiber {
  ucontext_t context;
  State state;
  unsigned exchanges;  // number of exchanges so far
  std::vector<char> stack = std::vector<char>(kStack);
};

// Settings of the next launches, which the tests set.
inline unsigned seed = 0;
inline int multiprocessors = 1;
inline bool capturing = false;
inline long launches = 0, blocks = 0;

inline float4* shared = nullptr;
inline std::vector<Fiber> fibers;
inline std::vector<float> exchanged;  // [2][threads]: a lane may be one exchange ahead of its warp
inline ucontext_t scheduler;
inline size_t running = 0;
inline void (*body)(const void*) = nullptr;
inline const void* argument = nullptr;

inline void wait(State state) {
  fibers[running].state = state;
  swapcontext(&fibers[running].context, &scheduler);
}

inline void begin() {
  body(argument);
  wait(kDone);
}

inline void prepare(Fiber& fiber) {
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = fiber.stack.data();
  fiber.context.uc_stack.ss_size = kStack;
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, begin, 0);
  fiber.state = kReady;
  fiber.exchanges = 0;
}

// Returns the value of lane `from` of the same warp, once every lane has provided its own.
inline float exchange(float value, unsigned from) {
  const size_t me = running, first = me / kWarp * kWarp;
  float* values = exchanged.data() + fibers[me].exchanges++ % 2 * fibers.size();
  values[me] = value;
  wait(kExchanging);
  return values[first + from];
}

inline bool all(State state, size_t first, size_t count) {
  return std::all_of(fibers.begin() + long(first), fibers.begin() + long(first + count),
                     [state](const Fiber& fiber) { return fiber.state == state; });
}

// Lets `count` fibers continue if all of them wait for each other in this state.
inline bool release(State state, size_t first, size_t count) {
  if (!all(state, first, count)) return false;
  for (size_t i = first; i < first + count; ++i) fibers[i].state = kReady;
  return true;
}

// Returns false if some fibers wait for others that will never arrive.
inline bool run_block(std::minstd_rand& random) {
  std::vector<unsigned> order(fibers.size());
  for (unsigned i = 0; i < order.size(); ++i) order[i] = i;
  for (Fiber& fiber : fibers) prepare(fiber);
  ++blocks;
  while (true) {
    if (seed) std::shuffle(order.begin(), order.end(), random);
    for (unsigned i : order) {
      if (fibers[i].state != kReady) continue;
      running = i;
      threadIdx = dim3(i);
      swapcontext(&scheduler, &fibers[i].context);
    }
    if (all(kDone, 0, fibers.size())) return true;
    bool going = release(kAtBarrier, 0, fibers.size());
    for (size_t first = 0; first < fibers.size(); first += kWarp) going |= release(kExchanging, first, kWarp);
    if (!going) return false;
  }
}

}  // namespace on_host

inline void __syncthreads() { on_host::wait(on_host::kAtBarrier); }
inline float __shfl_sync(unsigned, float value, int lane) { return on_host::exchange(value, unsigned(lane) % 32); }
inline float __shfl_xor_sync(unsigned, float value, int mask) {
  return on_host::exchange(value, (threadIdx.x ^ unsigned(mask)) % 32);
}
inline float __shfl_down_sync(unsigned, float value, unsigned by) {
  const unsigned lane = threadIdx.x % 32;
  return on_host::exchange(value, lane + by < 32 ? lane + by : lane);
}

inline const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorLaunchFailure ? "not all threads reach a barrier" : "no device accepts this launch";
}
inline cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
  *value = on_host::multiprocessors;
  return cudaSuccess;
}
inline cudaError_t cudaStreamIsCapturing(cudaStream_t, cudaStreamCaptureStatus* status) {
  *status = on_host::capturing ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}

template <class Argument>
cudaError_t cudaLaunchKernel(void (*kernel)(Argument), dim3 grid, dim3 block, void** arguments, size_t shared_bytes,
                             cudaStream_t) {
  using Value = std::remove_cv_t<Argument>;
  static std::mutex one_at_a_time;
  const std::lock_guard<std::mutex> lock(one_at_a_time);
  if (!grid.x || !grid.y || !grid.z || grid.y > 65535 || grid.z > 65535 || block.x % 32 || block.x > 1024 ||
      block.y * block.z != 1 || shared_bytes > 48 * 1024 || sizeof(Value) > 4096)
    return cudaErrorInvalidConfiguration;
  static void (*launched)(Argument);
  launched = kernel;
  const Value copy = *static_cast<const Value*>(arguments[0]);  // a launch takes its argument by value
  on_host::argument = &copy;
  on_host::body = [](const void* argument) { launched(*static_cast<const Value*>(argument)); };
  if (on_host::fibers.size() != block.x) on_host::fibers = std::vector<on_host::Fiber>(block.x);
  on_host::exchanged.assign(2 * block.x, 0.0f);
  on_host::shared = static_cast<float4*>(std::aligned_alloc(16, (shared_bytes + 15) / 16 * 16));
  gridDim = grid;
  blockDim = block;
  ++on_host::launches;
  std::minstd_rand random(on_host::seed + 1);
  std::vector<unsigned> order(size_t(grid.x) * grid.y * grid.z);
  for (unsigned i = 0; i < order.size(); ++i) order[i] = i;
  if (on_host::seed) std::shuffle(order.begin(), order.end(), random);
  bool sound = true;
  for (size_t i = 0; sound && i < order.size(); ++i) {
    blockIdx = dim3(order[i] % grid.x, order[i] / grid.x % grid.y, order[i] / grid.x / grid.y);
    std::memset(on_host::shared, 0xff, shared_bytes);
    sound = on_host::run_block(random);
  }
  std::free(on_host::shared);
  return sound ? cudaSuccess : cudaErrorLaunchFailure;
}
