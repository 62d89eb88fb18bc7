// The operator ai.lime::LimeLinear<n> and its variants (../registration.h) for ONNX Runtime's CUDA execution provider.
//
// COMPILED, NOT RUN ON A GPU. The tests compile the same source for the host and run it inside ONNX Runtime. By default
// this library is not used: the function in the graph runs on CUDA.
//
// The operator requests skill ids in host memory. ONNX Runtime then never copies them to the device, and an invalid id
// is an error of the call that passes it, as on a CPU, without waiting for the device. The ids reach the kernel in its
// launch argument. A CUDA graph would therefore replay the ids that it was captured with, so capturing is refused.
//   nvcc -std=c++17 -O3 -shared -Xcompiler -fPIC,-fvisibility=hidden operators.cu -o liblime_operators_cuda.so
#include <algorithm>
#include <memory>
#include <string>

#include "../call.h"
#include "../registration.h"
#include "kernel.cuh"

#ifndef LIME_PROVIDER  // the tests register the host build with another provider
#define LIME_PROVIDER "CUDAExecutionProvider"
#endif

namespace lime {
namespace {

constexpr int kFewTokens = 8;           // up to this many tokens, as in decoding, get a block each
constexpr int kTile = 8;                // tokens per block otherwise
constexpr int kSharedBytes = 48 * 1024;  // shared memory that every device gives a block by default

Status* check(cudaError_t error) {
  return error == cudaSuccess ? nullptr : fail(std::string("CUDA: ") + cudaGetErrorString(error));
}

struct Kernel : Constants {
  int64_t largest_rank = 0, widest = 0, columns = 0;  // largest r and largest H of a part, R
  int multiprocessors = 1;
};

template <int G, class T, class P>
Status* start(const Kernel& kernel, cuda::Launch& launch, const cuda::Layout& layout, cudaStream_t stream) {
  const int64_t tiles = (launch.last - launch.first + G - 1) / G;
  const int64_t useful = (kernel.widest + cuda::kThreads - 1) / cuda::kThreads;
  const int64_t idle = 2 * kernel.multiprocessors / (tiles * kernel.node.parts);  // slices that the device has room for
  const dim3 grid(unsigned(tiles), unsigned(kernel.node.parts), unsigned(std::clamp<int64_t>(idle, 1, useful)));
  void* arguments[] = {&launch};
  return check(cudaLaunchKernel(cuda::lime_linear<G, T, P>, grid, dim3(cuda::kThreads), arguments,
                                size_t(layout.total) * sizeof(float), stream));
}

// One launch, or several if more than kIds tokens have different skills.
template <class T, class P> Status* run(const Kernel& kernel, cuda::Launch& launch, cudaStream_t stream) {
  const Job& job = launch.job;
  const auto id = [&job](int64_t token) {
    return int(job.ids[token / job.tokens * job.id_row + token % job.tokens * job.id_token]);
  };
  const int64_t tokens = job.rows * job.tokens;
  int64_t alike = 1;
  while (alike < tokens && id(alike) == id(0)) ++alike;
  launch.id_step = alike < tokens;
  const int64_t together = launch.id_step ? cuda::kIds : tokens;
  const cuda::Layout one(1, kernel.largest_rank, kernel.node.routing);
  const cuda::Layout many(kTile, kernel.largest_rank, kernel.node.routing);
  const bool single = tokens <= kFewTokens || many.total * sizeof(float) > kSharedBytes;
  for (launch.first = 0; launch.first < tokens; launch.first = launch.last) {
    launch.last = std::min(launch.first + together, tokens);
    for (int64_t token = launch.first; token < (launch.id_step ? launch.last : launch.first + 1); ++token)
      launch.ids[token - launch.first] = id(token);
    LIME_TRY((single ? start<1, T, P>(kernel, launch, one, stream) : start<kTile, T, P>(kernel, launch, many, stream)));
  }
  return nullptr;
}

// Reads the addresses of the shared adapter's matrices.
Status* adapter(KernelContext* context, int parts, cuda::Launch& launch) {
  const Value* value;
  LIME_TRY(api.GetInput(context, 2, &value));
  LIME_TRY(data_of(value, launch.a));
  for (int i = 0; i < parts; ++i) {
    LIME_TRY(api.GetInput(context, size_t(3 + i), &value));
    LIME_TRY(data_of(value, launch.b[i]));
  }
  return nullptr;
}

struct Cuda {
  static constexpr const char* kProvider = LIME_PROVIDER;
  static constexpr int kMemoryOfIds = kHostMemory;
  static constexpr bool kInPlace = false;  // a block may read elements of y whose outputs another block has written

  template <class T, class P> static Status* create(const KernelInfo* info, int parts, bool times, void** out) {
    auto kernel = std::make_unique<Kernel>();
    const Attributes given{info};
    Node& node = kernel->node;
    const Value* unused;
    int device = 0;
    LIME_TRY(read_routing(given, sizeof(T) == 2, node.routing));
    LIME_TRY(read_parts(given, parts, *kernel));
    node.times = times;
    for (int i = 0; i < parts; ++i) {
      kernel->columns += node.part[i].rank;
      kernel->largest_rank = std::max(kernel->largest_rank, node.part[i].rank);
      kernel->widest = std::max(kernel->widest, node.part[i].width);
      LIME_TRY(matrix_of(info, size_t(3 + i), node.part[i].width, node.part[i].rank, unused));
    }
    node.depth = -1;
    LIME_TRY(matrix_of(info, 2, kernel->columns, node.depth, unused));
    LIME_TRY(check(cudaGetDevice(&device)));
    LIME_TRY(check(cudaDeviceGetAttribute(&kernel->multiprocessors, cudaDevAttrMultiProcessorCount, device)));
    *out = kernel.release();
    return nullptr;
  }

  template <class T, class P> static Status* compute(void* opaque, KernelContext* context) {
    const Kernel& kernel = *static_cast<const Kernel*>(opaque);
    Call call{kernel, context, {}, {}};
    Value* out;
    cuda::Launch launch;
    void* stream;
    cudaStreamCaptureStatus capture;
    LIME_TRY(call.activations());
    LIME_TRY(call.skills());
    LIME_TRY(api.GetOutput(context, 0, call.shape, 3, &out));
    LIME_TRY(data_of(out, call.job.out));
    if (kernel.node.routing.window > 1) LIME_TRY(call.window());
    LIME_TRY(adapter(context, kernel.node.parts, launch));
    LIME_TRY(api.GetComputeStream(context, &stream));
    LIME_TRY(check(cudaStreamIsCapturing(static_cast<cudaStream_t>(stream), &capture)));
    if (capture != cudaStreamCaptureStatusNone)
      return fail("the host reads the skill ids: the node cannot be part of a CUDA graph; set enable_cuda_graph to 0");
    launch.node = kernel.node;
    launch.job = call.job;
    launch.columns = kernel.columns;
    return run<T, P>(kernel, launch, static_cast<cudaStream_t>(stream));
  }

  static void destroy(void* kernel) { delete static_cast<Kernel*>(kernel); }
};

}  // namespace
}  // namespace lime

LIME_EXPORT const char* LimeOperatorsDescribe() {
  static const std::string text = std::to_string(lime::kVersion) + " cuda";
  return text.c_str();
}

LIME_EXPORT ort::Status* RegisterCustomOps(ort::SessionOptions* options, const ort::ApiBase* base) {
  return lime::register_operators<lime::Cuda, float, __half>(options, base);
}
