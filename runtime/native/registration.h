// Registers the operators ai.lime::LimeLinear<n>, LimeGain<n>, LimeLinearTimes<n> and LimeGainTimes<n>, n from 1 to 4,
// with ONNX Runtime, for one kind of processor.
#pragma once
#include <cstdio>
#include <exception>
#include <string>

#include "abi.h"
#include "call.h"

#if defined(_WIN32)
#define LIME_EXPORT extern "C" __declspec(dllexport)
#else
#define LIME_EXPORT extern "C" __attribute__((visibility("default")))
#endif

namespace lime {
namespace {

using ort::CustomOp;

constexpr int kVersion = 1;  // of the operators; equals lime_edge.contract.model.OPSET
constexpr int kDefaultMemory = 0, kHostMemory = -2;

// The operator for one number of parts and one pair of element types. Gain is for nodes that read the gain alone: the
// kernel is the same, but it needs a name of its own because the function in the graph differs. Times adds the input
// `factor`. A Device has
//   kProvider         the execution provider that the kernel belongs to
//   kMemoryOfIds      where the skill ids must be: kDefaultMemory or kHostMemory
//   kInPlace          whether the output may reuse the memory of y
//   create<T, P>, compute<T, P>, destroy   the kernel of one node; T activations, P bank and shared adapter
template <class Device, int Parts, bool Gain, bool Times, class T, class P> struct Operator {
  static constexpr bool kHalf = sizeof(T) == 2;
  static constexpr int kActivations = kHalf ? ort::kFloat16 : ort::kFloat;
  static constexpr int kStored = sizeof(P) == 2 ? ort::kFloat16 : ort::kFloat;  // bank and shared adapter
  static constexpr size_t kPast = 5 + Parts + Times;  // the index of the input past_evidence, which is the last

  static const char* name(const CustomOp*) {
    static const std::string text =
        std::string(Gain ? "LimeGain" : "LimeLinear") + (Times ? "Times" : "") + std::to_string(Parts);
    return text.c_str();
  }
  static const char* provider(const CustomOp*) { return Device::kProvider; }
  static size_t inputs(const CustomOp*) { return kPast + 1; }
  static size_t outputs(const CustomOp*) { return 2; }
  static int input_type(const CustomOp*, size_t i) {
    if (i == 4 + Parts) return ort::kInt64;
    return i < 2 || i > 4 + Parts ? kActivations : kStored;
  }
  static int output_type(const CustomOp*, size_t) { return kActivations; }
  static int input_need(const CustomOp*, size_t i) { return i == kPast ? ort::kOptional : ort::kRequired; }
  static int output_need(const CustomOp*, size_t i) { return i == 1 ? ort::kOptional : ort::kRequired; }
  static int memory(const CustomOp*, size_t i) { return i == 4 + Parts ? Device::kMemoryOfIds : kDefaultMemory; }
  static int one(const CustomOp*) { return 1; }
  static int every(const CustomOp*) { return 0x7fffffff; }
  static size_t inplace(int** in, int** out) {
    if (!Device::kInPlace) return 0;
    *in = new int[1]{1};
    *out = new int[1]{0};
    return 1;
  }
  static size_t alias(int**, int**) { return 0; }
  static void release(int* in, int* out) {
    delete[] in;
    delete[] out;
  }

  static Status* create(const CustomOp*, const ort::Api*, const KernelInfo* info, void** out) {
    try {
      return Device::template create<T, P>(info, Parts, Times, out);
    } catch (const std::exception& error) {
      return fail(error.what());
    }
  }
  static Status* compute(void* kernel, KernelContext* context) {
    try {
      return Device::template compute<T, P>(kernel, context);
    } catch (const std::exception& error) {
      return fail(error.what());
    }
  }

  static const CustomOp* get() {
    static const CustomOp custom_op = [] {
      CustomOp op{};
      op.version = api.version;
      op.GetName = name;
      op.GetExecutionProviderType = provider;
      op.GetInputType = input_type;
      op.GetInputTypeCount = inputs;
      op.GetOutputType = output_type;
      op.GetOutputTypeCount = outputs;
      op.KernelDestroy = Device::destroy;
      op.GetInputCharacteristic = input_need;
      op.GetOutputCharacteristic = output_need;
      op.GetInputMemoryType = memory;
      op.GetVariadicInputMinArity = op.GetVariadicInputHomogeneity = one;
      op.GetVariadicOutputMinArity = op.GetVariadicOutputHomogeneity = one;
      op.CreateKernelV2 = create;
      op.KernelComputeV2 = compute;
      op.GetStartVersion = one;
      op.GetEndVersion = every;
      op.GetMayInplace = inplace;
      op.ReleaseMayInplace = release;
      op.GetAliasMap = alias;
      op.ReleaseAliasMap = release;
      return op;
    }();
    return &custom_op;
  }
};

template <class Device, int Parts, bool Gain, bool Times, class F, class H> Status* add(ort::CustomOpDomain* domain) {
  LIME_TRY((api.AddOperator(domain, Operator<Device, Parts, Gain, Times, F, F>::get())));
  LIME_TRY((api.AddOperator(domain, Operator<Device, Parts, Gain, Times, F, H>::get())));
  return api.AddOperator(domain, Operator<Device, Parts, Gain, Times, H, H>::get());
}

template <class Device, bool Gain, bool Times, class F, class H> Status* add_all(ort::CustomOpDomain* domain) {
  LIME_TRY((add<Device, 1, Gain, Times, F, H>(domain)));
  LIME_TRY((add<Device, 2, Gain, Times, F, H>(domain)));
  LIME_TRY((add<Device, 3, Gain, Times, F, H>(domain)));
  return add<Device, 4, Gain, Times, F, H>(domain);
}

// Creates one domain for the lifetime of the process; all sessions share it.
template <class Device, class F, class H> Status* domain_of_process(ort::CustomOpDomain*& domain) {
  static ort::CustomOpDomain* shared = nullptr;
  static Status* status = [] {
    LIME_TRY(api.CreateCustomOpDomain("ai.lime", &shared));
    LIME_TRY((add_all<Device, false, false, F, H>(shared)));
    LIME_TRY((add_all<Device, true, false, F, H>(shared)));
    LIME_TRY((add_all<Device, false, true, F, H>(shared)));
    return add_all<Device, true, true, F, H>(shared);
  }();
  domain = shared;
  return status;
}

// Adds the operators to a session's options. F and H are the device's types for fp32 and fp16.
template <class Device, class F, class H>
Status* register_operators(ort::SessionOptions* options, const ort::ApiBase* base) {
  // The newest API version that both this file and the runtime know: asking for a newer one would print an error.
  unsigned minor = 0;
  std::sscanf(base->GetVersionString(), "%*u.%u", &minor);
  const uint32_t version = minor >= 24 ? 24 : 18;
  const ort::Api* table = base->GetApi(version);
  if (!table) {
    ort::Functions old;
    if (const ort::Api* first = base->GetApi(1)) {
      old.resolve(first, 1);
      return old.CreateStatus(ort::kInvalidArgument, "the LiME operators need ONNX Runtime 1.18 or later");
    }
    return nullptr;
  }
  static const bool resolved = [table, version] {
    api.resolve(table, version);
    return true;
  }();
  (void)resolved;
  ort::CustomOpDomain* domain;
  if (Status* status = domain_of_process<Device, F, H>(domain)) return status;
  return api.AddCustomOpDomain(options, domain);
}

}  // namespace
}  // namespace lime
