// Validates what ONNX Runtime passes to an operator: a node's attributes when its kernel is created, and the inputs of
// every call before the kernel reads them. Shared by the CPU library and the CUDA library.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "abi.h"
#include "job.h"

namespace lime {
namespace {

using ort::KernelContext;
using ort::KernelInfo;
using ort::Status;
using ort::Value;

constexpr int64_t kAlignment = 64;  // elements; equals lime_edge.contract.module_table.ALIGNMENT

ort::Functions api;

#define LIME_TRY(expression) \
  if (Status* status = (expression)) return status

Status* fail(const std::string& what) {
  return api.CreateStatus(ort::kInvalidArgument, ("LimeLinear: " + what).c_str());
}

struct Shape {
  const int64_t* dims = nullptr;
  size_t rank = 0;
  int64_t storage[8];  // for `dims`, where ONNX Runtime gives no reference to them
};

Status* shape_of(const Value* value, Shape& shape) {
  if (api.GetShapeReference) {
    int type;
    return api.GetShapeReference(value, &type, &shape.dims, &shape.rank);
  }
  ort::TensorInfo* info;
  LIME_TRY(api.GetTensorTypeAndShape(value, &info));
  Status* status = api.GetDimensionsCount(info, &shape.rank);
  if (!status && shape.rank > 8)
    status = fail("an input has " + std::to_string(shape.rank) + " dimensions; expected at most 8");
  if (!status) status = api.GetDimensions(info, shape.storage, shape.rank);
  shape.dims = shape.storage;
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

// The constants of one node, read from its attributes.
struct Constants {
  Node node;
  int64_t block_end = 0;  // where the node's vectors end in a segment, in elements
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
    return fail(std::string(name) + " is " + std::to_string(out) + "; expected " + std::to_string(least) + " to " +
                std::to_string(most));
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
      if (size < 1 || size > most)
        return fail(std::string(name) + " holds " + std::to_string(size) + "; expected 1 to " + std::to_string(most));
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
  routing.smallest_scale = half ? 0x1p-14f : 1e-6f;  // fp16: its smallest normal; as exporters/operators/routing.py
  return nullptr;
}

// Reads the sizes of the parts, and computes where each part's vectors lie in a segment of a bank row.
Status* read_parts(const Attributes& given, int parts, Constants& constants) {
  Node& node = constants.node;
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
    for (size_t begin = 0, end; begin <= kinds.size(); begin = end + 1) {
      end = std::min(kinds.find(',', begin), kinds.size());
      const std::string kind = kinds.substr(begin, end - begin);
      int64_t* place = kind == "expert" ? &part.fields[kExpert]
                       : kind == "gain" ? &part.fields[kGain]
                       : kind == "shift" ? &part.fields[kShift]
                       : kind == "rank" ? &part.gate
                                        : nullptr;
      if (!place || *place >= 0)
        return fail("kinds are " + kinds + "; expected some of expert,gain,shift,rank, each at most once");
      *place = at;
      at += kind == "rank" ? ranks[i] : sizes[i];
    }
    constants.block_end = at;
    at = (at + kAlignment - 1) / kAlignment * kAlignment;
    node.width += sizes[i];
    columns += ranks[i];
  }
  node.ranks = (columns + kGroup - 1) / kGroup * kGroup;
  if (node.ranks > kMaxRanks) return fail("the ranks sum to " + std::to_string(columns) + "; expected at most 4096");
  if (node.width < 1 || node.routing.experts > *std::min_element(sizes.begin(), sizes.end()))
    return fail("a part has fewer outputs than there are experts");
  return nullptr;
}

// Checks a matrix of the shared adapter, which must be a constant of the graph. `rows` is the expected number of rows,
// or -1 to accept any number; it is set to the number found.
Status* matrix_of(const KernelInfo* info, size_t index, int64_t columns, int64_t& rows, const Value*& value) {
  int constant = 0;
  Shape shape;
  LIME_TRY(api.ConstantInput(info, index, &constant, &value));
  if (!constant) return fail("the shared adapter must be an initializer of the graph");
  LIME_TRY(shape_of(value, shape));
  if (shape.rank != 2 || shape.dims[1] != columns || (rows >= 0 && shape.dims[0] != rows) || shape.dims[0] < 1)
    return fail("the shared adapter's input " + std::to_string(index) + " is " + text(shape) + "; expected [" +
                (rows < 0 ? "D" : std::to_string(rows)) + ", " + std::to_string(columns) + "]");
  rows = shape.dims[0];
  return nullptr;
}

Status* wrong_shape(const char* name, const Shape& found, const std::string& expected) {
  return fail(std::string(name) + " is " + text(found) + "; expected " + expected);
}

bool broadcasts(const Shape& shape, int64_t rows, int64_t tokens) {
  return shape.rank == 2 && (shape.dims[0] == 1 || shape.dims[0] == rows) &&
         (shape.dims[1] == 1 || shape.dims[1] == tokens);
}

// Reads the inputs of one call and checks them against each other, so that the kernel only reads inside their bounds.
struct Call {
  const Constants& constants;
  KernelContext* context;
  Job job;
  int64_t shape[3];

  Status* activations() {
    const Node& node = constants.node;
    const Value *x, *y;
    Shape of_x, of_y;
    LIME_TRY(api.GetInput(context, 0, &x));
    LIME_TRY(api.GetInput(context, 1, &y));
    LIME_TRY(shape_of(x, of_x));
    LIME_TRY(shape_of(y, of_y));
    if (of_x.rank != 3 || of_x.dims[2] != node.depth)
      return wrong_shape("x", of_x, "[B, S, " + std::to_string(node.depth) + "]");
    if (of_y.rank != 3 || of_y.dims[0] != of_x.dims[0] || of_y.dims[1] != of_x.dims[1] || of_y.dims[2] != node.width)
      return wrong_shape("y", of_y, "B and S of x " + text(of_x) + ", then " + std::to_string(node.width));
    std::memcpy(shape, of_y.dims, sizeof shape);
    job.node = &node;
    job.rows = shape[0];
    job.tokens = shape[1];
    LIME_TRY(data_of(x, job.x));
    LIME_TRY(data_of(y, job.y));
    return node.times ? factor() : nullptr;
  }

  Status* factor() {
    const Value* value;
    Shape found;
    LIME_TRY(api.GetInput(context, size_t(5 + constants.node.parts), &value));
    LIME_TRY(shape_of(value, found));
    if (found.rank != 3 || !std::equal(shape, shape + 3, found.dims))
      return wrong_shape("factor", found, "the shape of y, [" + std::to_string(shape[0]) + ", " +
                                              std::to_string(shape[1]) + ", " + std::to_string(shape[2]) + "]");
    return data_of(value, job.factor);
  }

  Status* skills() {
    const size_t first = size_t(3 + constants.node.parts);
    const Value *bank, *ids;
    Shape of_bank, of_ids;
    LIME_TRY(api.GetInput(context, first, &bank));
    LIME_TRY(api.GetInput(context, first + 1, &ids));
    LIME_TRY(shape_of(bank, of_bank));
    LIME_TRY(shape_of(ids, of_ids));
    const int64_t experts = constants.node.routing.experts;
    if (of_bank.rank != 2 || of_bank.dims[1] % experts || of_bank.dims[1] / experts < constants.block_end)
      return wrong_shape("bank", of_bank, "[N, P] with P / " + std::to_string(experts) + " of at least " +
                                              std::to_string(constants.block_end));
    if (!broadcasts(of_ids, job.rows, job.tokens))
      return wrong_shape("skill_ids", of_ids,
                         "[" + std::to_string(job.rows) + " or 1, " + std::to_string(job.tokens) + " or 1]");
    LIME_TRY(data_of(bank, job.bank));
    LIME_TRY(data_of(ids, job.ids));
    job.bank_width = of_bank.dims[1];
    job.segment = job.bank_width / experts;
    job.id_row = of_ids.dims[0] == 1 ? 0 : of_ids.dims[1];
    job.id_token = of_ids.dims[1] == 1 ? 0 : 1;
    const int64_t least = experts > 1 ? 1 - of_bank.dims[0] : 0;  // an id below 0 is a skill of E experts
    for (int64_t i = 0; i < of_ids.dims[0] * of_ids.dims[1]; ++i)
      if (job.ids[i] < least || job.ids[i] >= of_bank.dims[0])
        return fail("skill id " + std::to_string(job.ids[i]) + " is not in the bank of " +
                    std::to_string(of_bank.dims[0]) + " rows");
    return nullptr;
  }

  Status* window() {
    const Node& node = constants.node;
    const int64_t before = node.routing.window - 1, width = node.parts * node.routing.experts;
    const size_t index = size_t(5 + node.parts + node.times);
    const Value* past = nullptr;
    Shape of_past;
    size_t given = 0;
    LIME_TRY(api.GetInputCount(context, &given));
    if (given > index) LIME_TRY(api.GetInput(context, index, &past));
    if (!past) return fail("past_evidence is missing; a window of more than 1 needs it");
    LIME_TRY(shape_of(past, of_past));
    const bool rows = of_past.rank == 3 && (of_past.dims[0] == 1 || of_past.dims[0] == job.rows);
    if (!rows || of_past.dims[1] != before || of_past.dims[2] < node.evidence_offset + width + 1)
      return wrong_shape("past_evidence", of_past,
                         "[B or 1, " + std::to_string(before) + ", columns of all modules + 1]");
    LIME_TRY(data_of(past, job.past));
    job.past_columns = of_past.dims[2];
    job.past_row = of_past.dims[0] == 1 ? 0 : before * job.past_columns;
    const int64_t outputs[3] = {job.rows, job.tokens, width};
    Value* evidence;
    LIME_TRY(api.GetOutput(context, 1, outputs, 3, &evidence));
    if (!evidence) return fail("the output evidence is missing; a window of more than 1 needs it");
    return data_of(evidence, job.evidence);
  }
};

}  // namespace
}  // namespace lime
