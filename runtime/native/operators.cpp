// The operators ai.lime::LimeLinear1 .. LimeLinear4 for ONNX Runtime on a CPU.
//
// What they compute is stated in exporters/function.py and defined by tests/reference.py. This file reads the
// attributes, repacks the constants once, and holds every input of every call against its promises before anything is
// read through it; the arithmetic is in kernel.inc. One translation unit:
//   c++ -std=c++17 -O3 -fPIC -shared -fvisibility=hidden operators.cpp -o liblime_operators.so
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "abi.h"
#include "dispatch.h"

#if defined(_WIN32)
#define LIME_EXPORT extern "C" __declspec(dllexport)
#else
#define LIME_EXPORT extern "C" __attribute__((visibility("default")))
#endif

namespace lime {
namespace {

using ort::CustomOp;
using ort::KernelContext;
using ort::KernelInfo;
using ort::Status;
using ort::Value;

constexpr int kVersion = 1;       // of the operators, as lime_edge.contract.OPSET
constexpr int64_t kAlignment = 64;  // elements; as lime_edge.contract.ALIGNMENT
constexpr int64_t kSerial = 32;   // up to so many tokens are not worth waking another thread

ort::Functions api;
Set set;

#define LIME_TRY(expression) \
  if (Status* status = (expression)) return status

Status* fail(const std::string& what) {
  return api.CreateStatus(ort::kInvalidArgument, ("LimeLinear: " + what).c_str());
}

struct Shape {
  const int64_t* dims = nullptr;
  size_t rank = 0;
  int64_t held[8];
};

Status* shape_of(const Value* value, Shape& shape) {
  if (api.GetShapeReference) {
    int type;
    return api.GetShapeReference(value, &type, &shape.dims, &shape.rank);
  }
  ort::TensorInfo* info;
  LIME_TRY(api.GetTensorTypeAndShape(value, &info));
  Status* status = api.GetDimensionsCount(info, &shape.rank);
  if (!status && shape.rank > 8) status = fail("an input has more than 8 dimensions");
  if (!status) status = api.GetDimensions(info, shape.held, shape.rank);
  shape.dims = shape.held;
  api.ReleaseTensorInfo(info);
  return status;
}

std::string text(const Shape& shape) {
  std::string out = "[";
  for (size_t i = 0; i < shape.rank; ++i) out += (i ? ", " : "") + std::to_string(shape.dims[i]);
  return out + "]";
}

template <class T> Status* data_of(const Value* value, T*& data) {
  void* raw;
  LIME_TRY(api.GetTensorMutableData(const_cast<Value*>(value), &raw));
  data = static_cast<T*>(raw);
  return nullptr;
}

struct Free {
  void operator()(void* p) const { std::free(p); }
};
template <class T> using Memory = std::unique_ptr<T, Free>;

// Aligned to a cache line, where the system can.
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

// One node of a graph: its constants, repacked.
struct Kernel {
  Node node;
  int64_t block_end = 0;  // elements of a bank row that it reads up to
  Memory<void> a, b[kMaxParts];
  Memory<float> leading[kMaxParts];
};

struct Attributes {
  const KernelInfo* info;
  Status* whole(const char* name, int64_t least, int64_t most, int64_t& out) const {
    LIME_TRY(api.AttributeInt(info, name, &out));
    if (out >= least && out <= most) return nullptr;
    return fail(std::string(name) + " is " + std::to_string(out) + "; expected " + std::to_string(least) + " to " +
                std::to_string(most));
  }
  Status* real(const char* name, float least, float most, float& out) const {
    LIME_TRY(api.AttributeFloat(info, name, &out));
    if (out >= least && out <= most) return nullptr;
    return fail(std::string(name) + " is " + std::to_string(out) + ", which is out of range");
  }
  Status* words(const char* name, std::string& out) const {
    size_t size = 0;
    LIME_TRY(api.AttributeString(info, name, nullptr, &size));
    out.assign(size, '\0');
    LIME_TRY(api.AttributeString(info, name, &out[0], &size));
    out.resize(std::strlen(out.c_str()));
    return nullptr;
  }
  Status* sizes(const char* name, int count, int64_t most, std::vector<int64_t>& out) const {
    size_t found = 0;
    LIME_TRY(api.AttributeInts(info, name, nullptr, &found));
    if (found != size_t(count))
      return fail(std::string(name) + " has " + std::to_string(found) + " entries; expected " + std::to_string(count));
    out.resize(found);
    LIME_TRY(api.AttributeInts(info, name, out.data(), &found));
    for (int64_t size : out)
      if (size < 1 || size > most) return fail(std::string(name) + " holds " + std::to_string(size));
    return nullptr;
  }
};

Status* read_routing(const Attributes& given, bool half, Routing& routing) {
  int64_t experts, keep, window;
  float temperature, softness;
  std::string mode;
  LIME_TRY(given.whole("experts", 1, kMaxExperts, experts));
  LIME_TRY(given.whole("keep", 1, experts, keep));
  LIME_TRY(given.whole("window", 1, kMaxWindow, window));
  LIME_TRY(given.real("gamma", 0, 1, routing.gamma));
  LIME_TRY(given.real("theta", 0, 1, routing.theta));
  LIME_TRY(given.real("temperature", 1e-4f, 1e4f, temperature));
  LIME_TRY(given.real("softness", 1e-4f, 1e4f, softness));
  LIME_TRY(given.words("mode", mode));
  if (mode == "hard") routing.mode = Mode::kHard;
  else if (mode == "soft") routing.mode = Mode::kSoft;
  else if (mode == "auto") routing.mode = Mode::kAuto;
  else if (mode == "auto_soft") routing.mode = Mode::kAutoSoft;
  else return fail("mode is " + mode + "; expected hard, soft, auto or auto_soft");
  routing.experts = int(experts);
  routing.keep = int(keep);
  routing.window = int(window);
  routing.inverse_temperature = 1 / temperature;
  routing.inverse_softness = 1 / softness;
  routing.log_theta = std::log(routing.theta);
  routing.smallest_scale = half ? 0x1p-14f : 1e-6f;  // the smallest normal number, as exporters/routing.py
  return nullptr;
}

// Where each part's vectors lie in a bank row.
Status* read_parts(const Attributes& given, int parts, Kernel& kernel) {
  Node& node = kernel.node;
  std::vector<int64_t> sizes, ranks;
  std::string kinds;
  int64_t at, columns = 0;
  LIME_TRY(given.sizes("parts", parts, int64_t(1) << 24, sizes));
  LIME_TRY(given.sizes("ranks", parts, kMaxRanks, ranks));
  LIME_TRY(given.words("kinds", kinds));
  LIME_TRY(given.whole("bank_offset", 0, int64_t(1) << 40, at));
  LIME_TRY(given.whole("evidence_offset", 0, int64_t(1) << 24, node.evidence_offset));
  node.parts = parts;
  for (int i = 0; i < parts; ++i) {
    Part& part = node.part[i];
    part = Part{node.width, sizes[i], ranks[i], columns, nullptr, nullptr, {-1, -1, -1}, -1};
    const int64_t field = node.routing.experts * sizes[i];
    for (size_t begin = 0, end; begin <= kinds.size(); begin = end + 1) {
      end = std::min(kinds.find(',', begin), kinds.size());
      const std::string kind = kinds.substr(begin, end - begin);
      int64_t* place = kind == "expert" ? &part.fields[kExpert]
                       : kind == "gain" ? &part.fields[kGain]
                       : kind == "shift" ? &part.fields[kShift]
                       : kind == "rank" ? &part.gate
                                        : nullptr;
      if (!place || *place >= 0) return fail("kinds are " + kinds + "; expected some of expert,gain,shift,rank");
      *place = at;
      at += kind == "rank" ? node.routing.experts * ranks[i] : field;
    }
    kernel.block_end = at;
    at = (at + kAlignment - 1) / kAlignment * kAlignment;
    node.width += sizes[i];
    columns += ranks[i];
  }
  node.ranks = (columns + kGroup - 1) / kGroup * kGroup;
  if (node.ranks > kMaxRanks) return fail("the ranks sum to " + std::to_string(columns) + "; at most 4096 are taken");
  if (node.width < 1 || node.routing.experts > *std::min_element(sizes.begin(), sizes.end()))
    return fail("a part has fewer outputs than there are experts");
  node.uses_low = node.routing.routed() || node.part[0].fields[kExpert] >= 0;
  return nullptr;
}

// A constant matrix.
template <class P>
Status* matrix(const KernelInfo* info, size_t index, int64_t columns, int64_t& rows, const P*& data) {
  int constant = 0;
  const Value* value = nullptr;
  Shape shape;
  LIME_TRY(api.ConstantInput(info, index, &constant, &value));
  if (!constant) return fail("the shared adapter must be an initializer of the graph");
  LIME_TRY(shape_of(value, shape));
  if (shape.rank != 2 || shape.dims[1] != columns || (rows >= 0 && shape.dims[0] != rows) || shape.dims[0] < 1)
    return fail("the shared adapter's input " + std::to_string(index) + " is " + text(shape) + "; expected [" +
                (rows < 0 ? "D" : std::to_string(rows)) + ", " + std::to_string(columns) + "]");
  rows = shape.dims[0];
  return data_of(value, data);
}

// A of all parts side by side, [D, sum of ranks] -> [ranks / kGroup][ceil(D / L)][kGroup][L], zeros where it ends.
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

// B of one part, [r, H] -> [ceil(H / L)][r][L], zeros where it ends.
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

Status* wrong(const char* name, const Shape& found, const std::string& expected) {
  return fail(std::string(name) + " is " + text(found) + "; expected " + expected);
}

bool broadcasts(const Shape& shape, int64_t rows, int64_t tokens) {
  return shape.rank == 2 && (shape.dims[0] == 1 || shape.dims[0] == rows) &&
         (shape.dims[1] == 1 || shape.dims[1] == tokens);
}

// The inputs of one call, held against each other: whatever passes is only read inside its bounds.
struct Call {
  const Kernel& kernel;
  KernelContext* context;
  Job job;
  int64_t shape[3];

  Status* activations() {
    const Node& node = kernel.node;
    const Value *x, *y;
    Shape of_x, of_y;
    LIME_TRY(api.GetInput(context, 0, &x));
    LIME_TRY(api.GetInput(context, 1, &y));
    LIME_TRY(shape_of(x, of_x));
    LIME_TRY(shape_of(y, of_y));
    if (of_x.rank != 3 || of_x.dims[2] != node.depth) return wrong("x", of_x, "[B, S, " + std::to_string(node.depth) + "]");
    if (of_y.rank != 3 || of_y.dims[0] != of_x.dims[0] || of_y.dims[1] != of_x.dims[1] || of_y.dims[2] != node.width)
      return wrong("y", of_y, "the B and S of x " + text(of_x) + " and " + std::to_string(node.width));
    std::memcpy(shape, of_y.dims, sizeof shape);
    job.node = &node;
    job.rows = shape[0];
    job.tokens = shape[1];
    LIME_TRY(data_of(x, job.x));
    return data_of(y, job.y);
  }

  Status* skills() {
    const size_t first = size_t(3 + kernel.node.parts);
    const Value *bank, *ids;
    Shape of_bank, of_ids;
    LIME_TRY(api.GetInput(context, first, &bank));
    LIME_TRY(api.GetInput(context, first + 1, &ids));
    LIME_TRY(shape_of(bank, of_bank));
    LIME_TRY(shape_of(ids, of_ids));
    if (of_bank.rank != 2 || of_bank.dims[1] < kernel.block_end)
      return wrong("bank", of_bank, "[N, P] with P of at least " + std::to_string(kernel.block_end));
    if (!broadcasts(of_ids, job.rows, job.tokens))
      return wrong("skill_ids", of_ids, "[" + std::to_string(job.rows) + " or 1, " + std::to_string(job.tokens) + " or 1]");
    LIME_TRY(data_of(bank, job.bank));
    LIME_TRY(data_of(ids, job.ids));
    job.bank_width = of_bank.dims[1];
    job.id_row = of_ids.dims[0] == 1 ? 0 : of_ids.dims[1];
    job.id_token = of_ids.dims[1] == 1 ? 0 : 1;
    for (int64_t i = 0; i < of_ids.dims[0] * of_ids.dims[1]; ++i)
      if (job.ids[i] < 0 || job.ids[i] >= of_bank.dims[0])
        return fail("skill id " + std::to_string(job.ids[i]) + " is not in the bank of " +
                    std::to_string(of_bank.dims[0]) + " rows");
    return nullptr;
  }

  Status* window(Memory<float>& low) {
    const Node& node = kernel.node;
    const int64_t before = node.routing.window - 1, width = node.parts * node.routing.experts;
    const size_t index = size_t(5 + node.parts);
    const Value* past = nullptr;
    Shape of_past;
    size_t given = 0;
    LIME_TRY(api.GetInputCount(context, &given));
    if (given > index) LIME_TRY(api.GetInput(context, index, &past));
    if (!past) return fail("past_evidence is missing, which a window needs");
    LIME_TRY(shape_of(past, of_past));
    const bool rows = of_past.rank == 3 && (of_past.dims[0] == 1 || of_past.dims[0] == job.rows);
    if (!rows || of_past.dims[1] != before || of_past.dims[2] < node.evidence_offset + width + 1)
      return wrong("past_evidence", of_past, "[B or 1, " + std::to_string(before) + ", columns of all modules + 1]");
    LIME_TRY(data_of(past, job.past));
    job.past_columns = of_past.dims[2];
    job.past_row = of_past.dims[0] == 1 ? 0 : before * job.past_columns;
    const int64_t outputs[3] = {job.rows, job.tokens, width};
    Value* evidence;
    LIME_TRY(api.GetOutput(context, 1, outputs, 3, &evidence));
    LIME_TRY(data_of(evidence, job.evidence));
    low = memory<float>(job.rows * job.tokens * node.ranks);
    job.low = low.get();
    return nullptr;
  }
};

struct Piece {
  const Job* job;
  Work work;
};

void run_piece(void* context, size_t index) {
  const Piece& piece = *static_cast<const Piece*>(context);
  const int64_t tokens = piece.job->rows * piece.job->tokens, first = int64_t(index) * piece.job->chunk;
  piece.work(*piece.job, first, std::min(first + piece.job->chunk, tokens));
}

Status* run(KernelContext* context, const Job& job, Work work) {
  const int64_t tokens = job.rows * job.tokens;
  if (tokens <= kSerial) {
    if (tokens) work(job, 0, tokens);
    return nullptr;
  }
  Piece piece{&job, work};
  return api.ParallelFor(context, run_piece, size_t((tokens + job.chunk - 1) / job.chunk), 0, &piece);
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
    LIME_TRY(call.window(low));
    LIME_TRY(run(context, call.job, kernels.gather));
  }
  return run(context, call.job, kernels.apply);
}

// The operator for one number of parts and one pair of element types.
template <int Parts, class T, class P> struct Operator {
  static constexpr bool kHalf = sizeof(T) == 2;
  static constexpr int kActivations = kHalf ? ort::kFloat16 : ort::kFloat;
  static constexpr int kStored = sizeof(P) == 2 ? ort::kFloat16 : ort::kFloat;  // bank and shared adapter
  static constexpr size_t kPast = 5 + Parts;

  static const char* name(const CustomOp*) {
    static const std::string held = "LimeLinear" + std::to_string(Parts);
    return held.c_str();
  }
  static const char* provider(const CustomOp*) { return "CPUExecutionProvider"; }
  static size_t inputs(const CustomOp*) { return kPast + 1; }
  static size_t outputs(const CustomOp*) { return 2; }
  static int input_type(const CustomOp*, size_t i) {
    if (i == 4 + Parts) return ort::kInt64;
    return i < 2 || i == kPast ? kActivations : kStored;
  }
  static int output_type(const CustomOp*, size_t) { return kActivations; }
  static int input_need(const CustomOp*, size_t i) { return i == kPast ? ort::kOptional : ort::kRequired; }
  static int output_need(const CustomOp*, size_t i) { return i == 1 ? ort::kOptional : ort::kRequired; }
  static int memory(const CustomOp*, size_t) { return 0; }
  static int one(const CustomOp*) { return 1; }
  static int every(const CustomOp*) { return 0x7fffffff; }
  static size_t inplace(int** in, int** out) {  // the output may take the memory of y
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
      auto kernel = std::make_unique<Kernel>();
      const Attributes given{info};
      LIME_TRY(read_routing(given, kHalf, kernel->node.routing));
      LIME_TRY(read_parts(given, Parts, *kernel));
      LIME_TRY(pack<P>(info, *kernel));
      *out = kernel.release();
      return nullptr;
    } catch (const std::exception& error) {
      return fail(error.what());
    }
  }
  static Status* compute_one(void* kernel, KernelContext* context) {
    const Kernels& kernels = kHalf ? set.f16_f16 : sizeof(P) == 2 ? set.f32_f16 : set.f32_f32;
    try {
      return compute(*static_cast<const Kernel*>(kernel), kernels, context);
    } catch (const std::exception& error) {
      return fail(error.what());
    }
  }
  static void destroy(void* kernel) { delete static_cast<Kernel*>(kernel); }

  static const CustomOp* get() {
    static const CustomOp held = [] {
      CustomOp op{};
      op.version = api.version;
      op.GetName = name;
      op.GetExecutionProviderType = provider;
      op.GetInputType = input_type;
      op.GetInputTypeCount = inputs;
      op.GetOutputType = output_type;
      op.GetOutputTypeCount = outputs;
      op.KernelDestroy = destroy;
      op.GetInputCharacteristic = input_need;
      op.GetOutputCharacteristic = output_need;
      op.GetInputMemoryType = memory;
      op.GetVariadicInputMinArity = op.GetVariadicInputHomogeneity = one;
      op.GetVariadicOutputMinArity = op.GetVariadicOutputHomogeneity = one;
      op.CreateKernelV2 = create;
      op.KernelComputeV2 = compute_one;
      op.GetStartVersion = one;
      op.GetEndVersion = every;
      op.GetMayInplace = inplace;
      op.ReleaseMayInplace = release;
      op.GetAliasMap = alias;
      op.ReleaseAliasMap = release;
      return op;
    }();
    return &held;
  }
};

template <int Parts> Status* add(ort::CustomOpDomain* domain) {
  LIME_TRY(api.AddOperator(domain, Operator<Parts, float, float>::get()));
  LIME_TRY(api.AddOperator(domain, Operator<Parts, float, uint16_t>::get()));
  return api.AddOperator(domain, Operator<Parts, uint16_t, uint16_t>::get());
}

// One domain for the life of the process: sessions share it.
Status* domain_of_process(ort::CustomOpDomain*& domain) {
  static ort::CustomOpDomain* held = nullptr;
  static Status* status = [] {
    set = choose_set();
    LIME_TRY(api.CreateCustomOpDomain("ai.lime", &held));
    LIME_TRY(add<1>(held));
    LIME_TRY(add<2>(held));
    LIME_TRY(add<3>(held));
    return add<4>(held);
  }();
  domain = held;
  return status;
}

}  // namespace
}  // namespace lime

LIME_EXPORT const char* LimeOperatorsDescribe() {
  static const std::string held = std::to_string(lime::kVersion) + " " + lime::choose_set().name;
  return held.c_str();
}

LIME_EXPORT ort::Status* RegisterCustomOps(ort::SessionOptions* options, const ort::ApiBase* base) {
  // The newest API that this file knows and the runtime has: asking for more would print an error.
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
    lime::api.resolve(table, version);
    return true;
  }();
  (void)resolved;
  ort::CustomOpDomain* domain;
  if (ort::Status* status = lime::domain_of_process(domain)) return status;
  return lime::api.AddCustomOpDomain(options, domain);
}
