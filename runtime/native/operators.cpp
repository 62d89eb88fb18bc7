// The operator ai.lime::LimeLinear<n> and its variants (registration.h) for ONNX Runtime on a CPU.
//
// exporters/operators/lime_linear.py describes what they compute, and tests/reference.py defines it. This file repacks
// a node's constants once and distributes the tokens of a call over threads. call.h validates the inputs; kernel.inc
// holds the arithmetic. One translation unit:
//   c++ -std=c++17 -O3 -fPIC -shared -fvisibility=hidden operators.cpp -o liblime_operators.so
#include <algorithm>
#include <cstdlib>
#include <memory>
#include <new>
#include <string>

#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#endif

#include "call.h"
#include "dispatch.h"
#include "registration.h"

namespace lime {
namespace {

constexpr int64_t kSerial = 32;  // up to this many tokens, waking another thread costs more than it saves

Set set;

struct Free {
  void operator()(void* p) const { std::free(p); }
};
template <class T> using Memory = std::unique_ptr<T, Free>;

// Aligned to a cache line, except on Windows, which has no std::aligned_alloc.
template <class T> Memory<T> memory(int64_t count) {
  const size_t bytes = (size_t(count) * sizeof(T) + 64) / 64 * 64;
#if defined(_WIN32)
  void* raw = std::malloc(bytes);
#else
  void* raw = std::aligned_alloc(64, bytes);
#endif
  if (!raw) throw std::bad_alloc();
  return Memory<T>(static_cast<T*>(raw));
}

// One node of a graph with its constants repacked.
struct Kernel : Constants {
  Memory<void> a, b[kMaxParts];
  Memory<float> leading[kMaxParts];
};

// The data of a constant matrix, checked by matrix_of.
template <class P>
Status* matrix(const KernelInfo* info, size_t index, int64_t columns, int64_t& rows, const P*& data) {
  const Value* value;
  LIME_TRY(matrix_of(info, index, columns, rows, value));
  return data_of(value, data);
}

// A of all parts side by side, [D, sum of ranks] -> [ranks / kGroup][ceil(D / L)][kGroup][L], padded with zeros.
template <class P> Memory<void> pack_a(const P* source, int64_t columns, int64_t depth, int64_t ranks) {
  const int64_t lanes = set.lanes, tiles = (depth + lanes - 1) / lanes;
  Memory<P> packed = memory<P>(ranks * tiles * lanes);
  P* at = packed.get();
  for (int64_t group = 0; group < ranks; group += kGroup)
    for (int64_t k = 0; k < tiles; ++k)
      for (int64_t column = group; column < group + kGroup; ++column)
        for (int64_t row = k * lanes; row < (k + 1) * lanes; ++row)
          *at++ = row < depth && column < columns ? source[row * columns + column] : P(0);
  return Memory<void>(packed.release());
}

// B of one part, [r, H] -> [ceil(H / L)][r][L], padded with zeros.
template <class P> Memory<void> pack_b(const P* source, int64_t rank, int64_t width) {
  const int64_t lanes = set.lanes, tiles = (width + lanes - 1) / lanes;
  Memory<P> packed = memory<P>(rank * tiles * lanes);
  P* at = packed.get();
  for (int64_t tile = 0; tile < tiles; ++tile)
    for (int64_t r = 0; r < rank; ++r)
      for (int64_t h = tile * lanes; h < (tile + 1) * lanes; ++h) *at++ = h < width ? source[r * width + h] : P(0);
  return Memory<void>(packed.release());
}

template <class P> Status* pack(const KernelInfo* info, Kernel& kernel) {
  Node& node = kernel.node;
  const P* source;
  int64_t columns = 0;
  for (int i = 0; i < node.parts; ++i) columns += node.part[i].rank;
  node.depth = -1;
  LIME_TRY(matrix(info, 2, columns, node.depth, source));
  kernel.a = pack_a(source, columns, node.depth, node.ranks);
  node.a = kernel.a.get();
  for (int i = 0; i < node.parts; ++i) {
    Part& part = node.part[i];
    const int64_t experts = node.routing.experts;
    LIME_TRY(matrix(info, size_t(3 + i), part.width, part.rank, source));
    kernel.b[i] = pack_b(source, part.rank, part.width);
    kernel.leading[i] = memory<float>(part.rank * experts);
    for (int64_t r = 0; r < part.rank; ++r)
      for (int64_t e = 0; e < experts; ++e)
        kernel.leading[i].get()[r * experts + e] = baseline::number(source[r * part.width + e]);
    part.b = kernel.b[i].get();
    part.leading = kernel.leading[i].get();
  }
  return nullptr;
}

struct Piece {
  const Job* job;
  Work work;
};

// Tell ThreadSanitizer when pieces pass between threads: ONNX Runtime is not compiled with it, so it cannot see the
// synchronisation there. These functions do nothing in other builds.
#if defined(__SANITIZE_THREAD__)
void hand_over(void* at) { __tsan_release(at); }
void take_over(void* at) { __tsan_acquire(at); }
#else
void hand_over(void*) {}
void take_over(void*) {}
#endif

void run_piece(void* context, size_t index) {
  take_over(context);
  const Piece& piece = *static_cast<const Piece*>(context);
  const int64_t tokens = piece.job->rows * piece.job->tokens, first = int64_t(index) * piece.job->chunk;
  piece.work(*piece.job, first, std::min(first + piece.job->chunk, tokens));
  hand_over(context);
}

Status* run(KernelContext* context, const Job& job, Work work) {
  const int64_t tokens = job.rows * job.tokens;
  if (tokens <= kSerial) {
    if (tokens) work(job, 0, tokens);
    return nullptr;
  }
  Piece piece{&job, work};
  hand_over(&piece);
  Status* status = api.ParallelFor(context, run_piece, size_t((tokens + job.chunk - 1) / job.chunk), 0, &piece);
  take_over(&piece);
  return status;
}

Status* compute(const Kernel& kernel, const Kernels& kernels, KernelContext* context) {
  Call call{kernel, context, {}, {}};
  Memory<float> low;
  Value* out;
  LIME_TRY(call.activations());
  LIME_TRY(call.skills());
  LIME_TRY(api.GetOutput(context, 0, call.shape, 3, &out));
  LIME_TRY(data_of(out, call.job.out));
  call.job.chunk = 16;
  if (kernel.node.routing.window > 1) {
    LIME_TRY(call.window());
    low = memory<float>(call.job.rows * call.job.tokens * kernel.node.ranks);
    call.job.low = low.get();
    LIME_TRY(run(context, call.job, kernels.gather));
  }
  return run(context, call.job, kernels.apply);
}

struct Cpu {
  static constexpr const char* kProvider = "CPUExecutionProvider";
  static constexpr int kMemoryOfIds = kDefaultMemory;
  static constexpr bool kInPlace = true;

  template <class T, class P> static Status* create(const KernelInfo* info, int parts, bool times, void** out) {
    auto kernel = std::make_unique<Kernel>();
    const Attributes given{info};
    LIME_TRY(read_routing(given, sizeof(T) == 2, kernel->node.routing));
    LIME_TRY(read_parts(given, parts, *kernel));
    LIME_TRY(pack<P>(info, *kernel));
    kernel->node.times = times;
    *out = kernel.release();
    return nullptr;
  }
  template <class T, class P> static Status* compute(void* kernel, KernelContext* context) {
    const Kernels& kernels = sizeof(T) == 2 ? set.f16_f16 : sizeof(P) == 2 ? set.f32_f16 : set.f32_f32;
    return lime::compute(*static_cast<const Kernel*>(kernel), kernels, context);
  }
  static void destroy(void* kernel) { delete static_cast<Kernel*>(kernel); }
};

}  // namespace
}  // namespace lime

#ifndef LIME_SOURCES
#define LIME_SOURCES ""  // runtime/native/compiler.py sets it to " " and the digest of these sources
#endif

LIME_EXPORT const char* LimeOperatorsDescribe() {
  static const std::string text = std::to_string(lime::kVersion) + " " + lime::choose_set().name + LIME_SOURCES;
  return text.c_str();
}

LIME_EXPORT ort::Status* RegisterCustomOps(ort::SessionOptions* options, const ort::ApiBase* base) {
  static const bool chosen = (lime::set = lime::choose_set(), true);
  (void)chosen;
  return lime::register_operators<lime::Cpu, float, uint16_t>(options, base);
}
