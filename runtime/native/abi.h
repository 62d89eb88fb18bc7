// The part of ONNX Runtime's C ABI that a custom operator needs, declared by hand: no Python package ships the headers.
//
// OrtApi is a table of function pointers that only ever grows at its end, so an entry is identified by its index. The
// indices and the layout of OrtCustomOp match the published headers of API 21 and API 29.
#pragma once
#include <cstddef>
#include <cstdint>

namespace ort {

struct Status;
struct SessionOptions;
struct CustomOpDomain;
struct KernelInfo;
struct KernelContext;
struct Value;
struct TensorInfo;
struct ShapeContext;
struct Api;  // the table of function pointers

struct ApiBase {
  const Api* (*GetApi)(uint32_t version);
  const char* (*GetVersionString)();
};

// Describes an operator to ONNX Runtime. `version` is the API version that the struct is filled in for.
struct CustomOp {
  uint32_t version;
  void* (*CreateKernel)(const CustomOp*, const Api*, const KernelInfo*);
  const char* (*GetName)(const CustomOp*);
  const char* (*GetExecutionProviderType)(const CustomOp*);
  int (*GetInputType)(const CustomOp*, size_t);
  size_t (*GetInputTypeCount)(const CustomOp*);
  int (*GetOutputType)(const CustomOp*, size_t);
  size_t (*GetOutputTypeCount)(const CustomOp*);
  void (*KernelCompute)(void*, KernelContext*);
  void (*KernelDestroy)(void*);
  int (*GetInputCharacteristic)(const CustomOp*, size_t);
  int (*GetOutputCharacteristic)(const CustomOp*, size_t);
  int (*GetInputMemoryType)(const CustomOp*, size_t);
  int (*GetVariadicInputMinArity)(const CustomOp*);
  int (*GetVariadicInputHomogeneity)(const CustomOp*);
  int (*GetVariadicOutputMinArity)(const CustomOp*);
  int (*GetVariadicOutputHomogeneity)(const CustomOp*);
  Status* (*CreateKernelV2)(const CustomOp*, const Api*, const KernelInfo*, void**);
  Status* (*KernelComputeV2)(void*, KernelContext*);
  Status* (*InferOutputShape)(const CustomOp*, ShapeContext*);
  int (*GetStartVersion)(const CustomOp*);
  int (*GetEndVersion)(const CustomOp*);
  size_t (*GetMayInplace)(int** inputs, int** outputs);
  void (*ReleaseMayInplace)(int*, int*);
  size_t (*GetAliasMap)(int** inputs, int** outputs);
  void (*ReleaseAliasMap)(int*, int*);
};
static_assert(sizeof(void*) != 8 || sizeof(CustomOp) == 208, "CustomOp must have the layout that ONNX Runtime reads");

enum ElementType : int { kFloat = 1, kInt64 = 7, kFloat16 = 10 };
enum Characteristic : int { kRequired = 0, kOptional = 1 };
enum StatusCode : int { kInvalidArgument = 2 };

// The API functions in use, resolved once.
struct Functions {
  uint32_t version = 0;

  Status* (*CreateStatus)(int code, const char* message);
  Status* (*CreateCustomOpDomain)(const char* domain, CustomOpDomain** out);
  Status* (*AddOperator)(CustomOpDomain*, const CustomOp*);
  Status* (*AddCustomOpDomain)(SessionOptions*, CustomOpDomain*);
  Status* (*GetTensorMutableData)(Value*, void** out);
  Status* (*GetDimensionsCount)(const TensorInfo*, size_t* out);
  Status* (*GetDimensions)(const TensorInfo*, int64_t* out, size_t count);
  Status* (*GetTensorTypeAndShape)(const Value*, TensorInfo** out);
  Status* (*AttributeFloat)(const KernelInfo*, const char* name, float* out);
  Status* (*AttributeInt)(const KernelInfo*, const char* name, int64_t* out);
  Status* (*AttributeString)(const KernelInfo*, const char* name, char* out, size_t* size);
  Status* (*GetInputCount)(const KernelContext*, size_t* out);
  Status* (*GetInput)(const KernelContext*, size_t index, const Value** out);
  Status* (*GetOutput)(KernelContext*, size_t index, const int64_t* shape, size_t rank, Value** out);
  void (*ReleaseStatus)(Status*);
  void (*ReleaseTensorInfo)(TensorInfo*);
  Status* (*AttributeInts)(const KernelInfo*, const char* name, int64_t* out, size_t* size);
  Status* (*GetComputeStream)(const KernelContext*, void** out);  // the GPU's stream; null on a CPU
  Status* (*ConstantInput)(const KernelInfo*, size_t index, int* constant, const Value** out);
  Status* (*ParallelFor)(const KernelContext*, void (*)(void*, size_t), size_t total, size_t batches, void*);
  Status* (*GetShapeReference)(const Value*, int* type, const int64_t** dims, size_t* rank);  // null before API 24

  void resolve(const Api* api, uint32_t of_version) {
    version = of_version;
    const auto take = [api](auto& entry, size_t index) {
      void* const* table = reinterpret_cast<void* const*>(api);
      entry = reinterpret_cast<decltype(+entry)>(table[index]);
    };
    take(CreateStatus, 0);
    take(CreateCustomOpDomain, 26);
    take(AddOperator, 27);
    take(AddCustomOpDomain, 28);
    take(GetTensorMutableData, 51);
    take(GetDimensionsCount, 61);
    take(GetDimensions, 62);
    take(GetTensorTypeAndShape, 65);
    take(AttributeFloat, 85);
    take(AttributeInt, 86);
    take(AttributeString, 87);
    take(GetInputCount, 88);
    take(GetInput, 90);
    take(GetOutput, 91);
    take(ReleaseStatus, 93);
    take(ReleaseTensorInfo, 99);
    take(AttributeInts, 163);
    take(GetComputeStream, 193);
    take(ConstantInput, 249);
    take(ParallelFor, 274);
    GetShapeReference = nullptr;
    if (version >= 24) take(GetShapeReference, 414);
  }
};

}  // namespace ort
