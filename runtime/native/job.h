// One call of the operator as pointers and sizes. Shared by all instruction sets and by the CUDA kernel.
#pragma once
#include <cstddef>
#include <cstdint>

namespace lime {

constexpr int kMaxParts = 4;       // modules side by side in one node
constexpr int kMaxExperts = 64;    // equals the limit in lime_edge.contract.routing.Routing, like kMaxWindow
constexpr int kMaxRanks = 4096;    // sum of the parts' ranks, padded to kGroup
constexpr int kMaxWindow = 16;
constexpr int kGroup = 8;          // ranks that are computed together; packed A is padded to a multiple of it

enum class Mode { kHard, kSoft, kAuto, kAutoSoft };
enum Field { kExpert, kGain, kShift, kFields };  // vectors as wide as the output, in the order of their addition

struct Routing {
  int experts = 1, keep = 1, window = 1;
  float gamma = 0, inverse_temperature = 1, theta = 0, log_theta = 0, inverse_softness = 1, smallest_scale = 0;
  Mode mode = Mode::kHard;
  bool routed() const { return experts > 1 || window > 1; }
};

// One adapted module. Offsets into a segment of a bank row are in elements; -1 means that skills have no such vector.
struct Part {
  int64_t begin, width;       // the module's columns of y
  int64_t rank, low;          // r, and where its ranks begin in the packed A
  const void* b;              // packed [ceil(H / L)][r][L], of the bank's element type
  const float* leading;       // the first E columns of B, [r][E], for the evidence
  int64_t fields[kFields], gate;
};

// The constants of one node.
struct Node {
  Routing routing;
  int parts = 0;
  Part part[kMaxParts];
  int64_t depth = 0, width = 0, ranks = 0;  // D, H of all parts, sum of ranks padded to kGroup
  const void* a = nullptr;                  // packed [ranks / kGroup][ceil(D / L)][kGroup][L], of the bank's type
  int64_t evidence_offset = 0;              // the node's first column in past_evidence
  bool times = false;                       // whether the output is multiplied elementwise by a factor
};

// The tensors of one call. T tokens = B rows of S.
struct Job {
  const Node* node;
  const void *x, *y, *bank;
  const void* factor = nullptr;           // [B, S, H] like y; null without a factor
  void* out;
  const int64_t* ids;
  int64_t rows, tokens, bank_width, segment;  // B, S, P, P / E
  int64_t id_row, id_token;               // strides of the ids; 0 in a dimension that broadcasts
  const void* past = nullptr;             // [B or 1, n - 1, C + 1]
  void* evidence = nullptr;               // [B, S, parts * E]
  int64_t past_row = 0, past_columns = 0; // strides of `past`
  float* low = nullptr;                   // [T, ranks], computed in advance where routing has a window; else null
  int64_t chunk;                          // tokens per parallel piece
};

using Work = void (*)(const Job&, int64_t first, int64_t last);

// The code compiled for one instruction set and one pair of element types.
struct Kernels {
  Work gather;  // computes x A and the evidence; with a window, it must finish before `apply` starts
  Work apply;   // computes the modulated output
};

struct Set {
  const char* name;
  int lanes;
  Kernels f32_f32, f32_f16, f16_f16;  // type of the activations, then of bank and shared adapter
};

}  // namespace lime
