// The arithmetic of ai.lime::LimeLinear<n> on CUDA: one kernel, one launch for all parts of a node.
//
// COMPILED, NOT RUN ON A GPU. The tests compile the same source for the host and run it there, thread by thread.
//
// exporters/operators/lime_linear.py describes the computation, and tests/reference.py defines it. All arithmetic is in
// fp32, for every element type. A block processes G tokens and one part:
//   grid.x  tiles of G tokens, counted over all rows
//   grid.y  parts
//   grid.z  slices of the part's columns. Every slice repeats the projection and routing of its tokens: for the few
//           tokens of decoding that costs less than a second launch, and many tokens get one slice only.
// No block reads what another block writes, and no sum crosses blocks, so results do not depend on the order of blocks.
// With a window, a block needs the evidence of the n - 1 tokens before its own: it computes that evidence again.
//
// Bounds: tokens launch.first <= t < launch.last <= B * S, columns h < width, ranks r < rank, experts e < E.
// operators.cu checks all shapes against them before the launch. Layout gives the size of the shared memory.
#pragma once
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "../job.h"

#ifndef LIME_SHARED  // the host build of the tests defines its own
#define LIME_SHARED(name) extern __shared__ float4 name[]
#endif
#ifndef LIME_CUDA_THREADS
#define LIME_CUDA_THREADS 256
#endif

namespace lime::cuda {

constexpr int kThreads = LIME_CUDA_THREADS;  // threads per block
constexpr int kWarp = 32, kWarps = kThreads / kWarp;
constexpr int kPerLane = kMaxExperts / kWarp;  // experts per lane of the warp that routes a token
constexpr int kStage = 2048;                   // values of x that a block keeps in shared memory at a time
constexpr int kIds = 256;                      // most tokens of one launch whose skill ids differ
constexpr unsigned kEveryLane = 0xffffffffu;

// The kernel's argument, passed by value, so that a launch needs no other copy to the device.
struct Launch {
  Node node;  // its pointers are not used on the device
  Job job;    // its members `node` and `ids` are not used on the device
  const void *a, *b[kMaxParts];
  int64_t columns;      // columns of A
  int64_t first, last;  // tokens [first, last)
  int id_step;          // 0 if all tokens use ids[0], else 1
  int ids[kIds];        // skill ids of the tokens from `first` on
};

// One number for each of G tokens; one or two instructions load it.
template <int G> struct alignas(G >= 4 ? 16 : 4 * G) Tokens {
  float of[G];
};

// Offsets in a block's shared memory, in floats.
struct Layout {
  int low, weights, logits, total;
  __host__ __device__ Layout(int tokens, int64_t rank, const Routing& routing) {
    const int staged = kStage + kWarps * kWarp * tokens;
    low = staged;
    weights = low + int(rank) * tokens;
    logits = weights + routing.experts * tokens;
    total = logits + (routing.window - 1 + tokens) * routing.experts;
  }
};

__device__ inline float number(float value) { return value; }
__device__ inline float number(__half value) { return __half2float(value); }
__device__ inline void set(float& to, float value) { to = value; }
__device__ inline void set(__half& to, float value) { to = __float2half_rn(value); }

// Reductions over all lanes of a warp; every lane gets the result.
__device__ inline float warp_max(float value) {
  for (int other = kWarp / 2; other > 0; other /= 2) value = fmaxf(value, __shfl_xor_sync(kEveryLane, value, other));
  return value;
}
__device__ inline float warp_sum(float value) {
  for (int other = kWarp / 2; other > 0; other /= 2) value += __shfl_xor_sync(kEveryLane, value, other);
  return value;
}

// The work of one block. T is the element type of the activations, P that of bank and shared adapter.
template <int G, class T, class P> struct Block {
  static constexpr int kUnrolled = G == 1 ? 8 : 1;  // concurrent loads; with several tokens, registers allow only one

  const Launch& launch;
  const Routing& routing;
  const Part& part;
  const int64_t from;  // first token
  const int count;     // number of tokens, at most G
  const int lane, warp;
  Tokens<G>*const staged, *const partial, *const low, *const weights;
  float* const logits;
  int skills[G];  // skill ids: 0 is the base, above 0 a skill of one expert, below 0 a skill of E experts

  __device__ Block(const Launch& launch, float* shared, const Layout& layout)
      : launch(launch),
        routing(launch.node.routing),
        part(launch.node.part[blockIdx.y]),
        from(launch.first + int64_t(blockIdx.x) * G),
        count(int(launch.last - from < G ? launch.last - from : G)),
        lane(threadIdx.x % kWarp),
        warp(threadIdx.x / kWarp),
        staged(reinterpret_cast<Tokens<G>*>(shared)),
        partial(staged + kStage / G),
        low(reinterpret_cast<Tokens<G>*>(shared + layout.low)),
        weights(reinterpret_cast<Tokens<G>*>(shared + layout.weights)),
        logits(shared + layout.logits) {}

  __device__ void run() {
    if (int64_t(blockIdx.z) * kThreads >= part.width) return;  // another part has more slices
    bool skilled = false, routed = false;
    for (int g = 0; g < G; ++g) {
      skills[g] = skill(g);
      skilled |= skills[g] != 0;
      routed |= skills[g] < 0;
    }
    // With a window, later tokens need the evidence of every token; one slice per token writes it.
    const bool writes_evidence = routing.window > 1 && blockIdx.z == 0;
    if (skilled || writes_evidence) prepare(skilled, routed, writes_evidence);
    const int64_t step = int64_t(gridDim.z) * kThreads;
    for (int64_t h = int64_t(blockIdx.z) * kThreads + threadIdx.x; h < part.width; h += step) {
      if (skilled) modulate(h, routed ? routing.experts : 1);
      else
        for (int g = 0; g < count; ++g) copy((from + g) * launch.node.width + part.begin + h);
    }
  }

  // The skill id of token g; 0, the base, past the last token.
  __device__ int skill(int g) const {
    return g < count ? launch.ids[(from + g - launch.first) * launch.id_step] : 0;
  }

  // Computes `low` and `weights` of the block's tokens, where needed. All threads of a block call this, or none.
  __device__ void prepare(bool skilled, bool routed, bool writes_evidence) {
    int before = 0;  // tokens of this call before the first token that are in its window
    if (routed && routing.window > 1) before = int(min(int64_t(routing.window - 1), from % launch.job.tokens));
    for (int at = -before; at < 0; at += G) {
      project(from + at, min(G, -at));
      evidence(from + at, min(G, -at), logits + (before + at) * routing.experts, false);
    }
    if (routed || writes_evidence || part.fields[kExpert] >= 0) project(from, count);
    if (routed || writes_evidence) evidence(from, count, logits + before * routing.experts, writes_evidence);
    if (!skilled) return;
    __syncthreads();
    for (int g = warp; g < G; g += kWarps) weigh(g, logits + (before + g) * routing.experts);
    __syncthreads();
    if (part.gate >= 0) gate();
  }

  // low = x A for the part's ranks and the n <= G tokens from `token` on; zeros for the other G - n.
  // Neighbouring lanes read neighbouring elements: `ranks` lanes read one row of A, and a warp reads `slots` rows.
  __device__ void project(int64_t token, int n) {
    const int64_t depth = launch.node.depth;
    const T* x = static_cast<const T*>(launch.job.x) + token * depth;
    for (int64_t rank = 0; rank < part.rank; rank += kWarp) {
      const int ranks = int(min(int64_t(kWarp), part.rank - rank));
      const int slots = kWarp / ranks, slot = lane / ranks;  // lanes of slot >= slots are idle
      const P* a = static_cast<const P*>(launch.a) + part.low + rank + lane % ranks;
      Tokens<G> sum{};
      // A lane's rows depend on its position only, not on G: a token's sum does not depend on the rest of the block.
      int64_t row = warp * slots + slot;
      for (int64_t done = 0; done < depth; done += kStage / G) {
        const int rows = int(min(int64_t(kStage / G), depth - done));
        __syncthreads();  // no thread still reads the values that are overwritten next
        for (int d = threadIdx.x; d < rows; d += kThreads) {
          Tokens<G> column;
          for (int g = 0; g < G; ++g) column.of[g] = g < n ? number(x[g * depth + done + d]) : 0.0f;
          staged[d] = column;
        }
        __syncthreads();
        if (slot < slots) {
#pragma unroll kUnrolled
          for (; row < done + rows; row += kWarps * slots) {
            const float weight = number(a[row * launch.columns]);
            for (int g = 0; g < G; ++g) sum.of[g] += staged[row - done].of[g] * weight;
          }
        }
      }
      for (int left = slots; left > 1;) {  // fold the upper slots onto the lower ones
        const int half = (left + 1) / 2;
        for (int g = 0; g < G; ++g) {
          const float other = __shfl_down_sync(kEveryLane, sum.of[g], half * ranks);
          if (slot + half < left) sum.of[g] += other;
        }
        left = half;
      }
      partial[warp * kWarp + lane] = sum;
      __syncthreads();
      if (int(threadIdx.x) < ranks) {
        Tokens<G> total{};
        for (int w = 0; w < kWarps; ++w)
          for (int g = 0; g < G; ++g) total.of[g] += partial[w * kWarp + threadIdx.x].of[g];
        low[rank + threadIdx.x] = total;
      }
    }
    __syncthreads();
  }

  // Routing logits of n tokens, [n][E], not yet divided by the temperature. A warp takes a token, a lane its experts.
  __device__ void evidence(int64_t token, int n, float* out, bool writes_evidence) {
    const P* b = static_cast<const P*>(launch.b[blockIdx.y]);
    const int experts = routing.experts;
    for (int g = warp; g < n; g += kWarps) {
      const T* y = static_cast<const T*>(launch.job.y) + (token + g) * launch.node.width + part.begin;
      float frozen[kPerLane] = {}, adapted[kPerLane] = {}, largest_y = 0, largest_d = 0;
      for (int k = 0; k < kPerLane; ++k) {
        const int e = lane + k * kWarp;
        if (e >= experts) continue;
        frozen[k] = number(y[e]);
        for (int64_t r = 0; r < part.rank; ++r) adapted[k] += low[r].of[g] * number(b[r * part.width + e]);
        largest_y = fmaxf(largest_y, fabsf(frozen[k]));
        largest_d = fmaxf(largest_d, fabsf(adapted[k]));
      }
      largest_y = fmaxf(warp_max(largest_y), routing.smallest_scale);
      largest_d = fmaxf(warp_max(largest_d), routing.smallest_scale);
      for (int k = 0; k < kPerLane; ++k) {
        const int e = lane + k * kWarp;
        if (e >= experts) continue;
        T logit;
        const float exact =
            (1 - routing.gamma) * (frozen[k] / largest_y) + routing.gamma * (adapted[k] / largest_d);
        set(logit, exact);
        // With a window, use the rounded value that is written, so that later calls see the same evidence.
        out[g * experts + e] = routing.window > 1 ? number(logit) : exact;
        const int64_t column = (token + g) * launch.node.parts * experts + int64_t(blockIdx.y) * experts + e;
        if (writes_evidence) static_cast<T*>(launch.job.evidence)[column] = logit;
      }
    }
  }

  // Expert weights of token g. `latest` points to its logits, which follow those of the earlier tokens of this call.
  __device__ void weigh(int g, const float* latest) {
    const int experts = routing.experts;
    float w[kPerLane] = {lane == 0 ? 1.0f : 0.0f, 0};
    if (skill(g) < 0) {
      const int64_t row = (from + g) / launch.job.tokens, place = (from + g) % launch.job.tokens;
      for (int k = 0; k < kPerLane; ++k) {
        const int e = lane + k * kWarp;
        w[k] = e < experts ? mean(row, place, latest, e) * routing.inverse_temperature : -INFINITY;
      }
      select(w);
    }
    for (int k = 0; k < kPerLane; ++k)
      if (lane + k * kWarp < experts) weights[lane + k * kWarp].of[g] = w[k];
  }

  // The mean logit of the last n tokens that exist, oldest first. Tokens before this call are in `past`.
  __device__ float mean(int64_t row, int64_t place, const float* latest, int e) const {
    const Job& job = launch.job;
    float sum = 0, tokens = 0;
    for (int back = routing.window - 1; back >= 0; --back) {
      if (back <= place) {
        sum += latest[e - back * routing.experts];
        tokens += 1;
      } else {
        const T* past = static_cast<const T*>(job.past) + row * job.past_row +
                        (routing.window - 1 + place - back) * job.past_columns;
        sum += number(past[launch.node.evidence_offset + int64_t(blockIdx.y) * routing.experts + e]);
        tokens += number(past[job.past_columns - 1]);
      }
    }
    return sum / tokens;
  }

  // For each of this lane's experts: how many experts have a larger value.
  __device__ void larger(const float* values, int* counts) const {
    for (int k = 0; k < kPerLane; ++k) counts[k] = 0;
    for (int theirs = 0; theirs < kPerLane; ++theirs)
      for (int other = 0; other < kWarp && theirs * kWarp + other < routing.experts; ++other) {
        const float value = __shfl_sync(kEveryLane, values[theirs], other);
        for (int k = 0; k < kPerLane; ++k) counts[k] += value > values[k];
      }
  }

  // Turns logits (-inf beyond the last expert) into weights that sum to 1. An expert is kept if fewer than `keep`
  // experts have a larger value, so that all tied experts are kept.
  __device__ void select(float* w) const {
    const bool soft = routing.mode == Mode::kSoft || routing.mode == Mode::kAutoSoft;
    float largest = -INFINITY, sum = 0;
    int above[kPerLane];
    for (int k = 0; k < kPerLane; ++k) largest = fmaxf(largest, w[k]);
    largest = warp_max(largest);
    if (!soft) larger(w, above);
    for (int k = 0; k < kPerLane; ++k) {
      const bool kept = soft || (above[k] < routing.keep &&
                                 (routing.mode != Mode::kAuto || w[k] >= largest + routing.log_theta));
      w[k] = kept ? expf(w[k] - largest) : 0.0f;
      sum += w[k];
    }
    sum = warp_sum(sum);
    for (int k = 0; k < kPerLane; ++k) w[k] /= sum;
    if (!soft) return;
    float limit = routing.theta / sum;  // theta times the largest weight
    if (routing.mode == Mode::kSoft) {
      larger(w, above);
      float least = INFINITY;  // the k-th largest weight is the smallest that a hard selection keeps
      for (int k = 0; k < kPerLane; ++k)
        if (lane + k * kWarp < routing.experts && above[k] < routing.keep) least = fminf(least, w[k]);
      limit = -warp_max(-least);
    }
    sum = 0;
    for (int k = 0; k < kPerLane; ++k) {
      w[k] /= 1 + expf((limit - w[k]) * routing.inverse_softness);
      sum += w[k];
    }
    sum = warp_sum(sum);
    for (int k = 0; k < kPerLane; ++k) w[k] /= sum;
  }

  // The vectors of one expert of a skill in the bank.
  __device__ const P* segment(int skill, int expert) const {
    const int64_t row = skill < 0 ? -skill : skill;
    return static_cast<const P*>(launch.job.bank) + row * launch.job.bank_width + expert * launch.job.segment;
  }

  // Multiplies `low` by the rank gate of every token's skill.
  __device__ void gate() {
    for (int64_t i = threadIdx.x; i < part.rank * G; i += kThreads) {
      const int g = int(i % G);
      const int64_t r = i / G;
      const int own = skill(g), experts = own < 0 ? routing.experts : 1;
      if (own == 0) continue;
      float mixed = 0;
      for (int e = 0; e < experts; ++e) mixed += weights[e].of[g] * number(segment(own, e)[part.gate + r]);
      low[r].of[g] *= mixed;
    }
    __syncthreads();
  }

  // The output in column h of the block's tokens: y + d * expert + y * gain + shift, or y for a token without a skill,
  // multiplied by the factor if there is one.
  __device__ void modulate(int64_t h, int experts) const {
    const int64_t at = from * launch.node.width + part.begin + h;
    const T* y = static_cast<const T*>(launch.job.y) + at;
    float frozen[G], d[G] = {}, change[G] = {};
    for (int g = 0; g < G; ++g) frozen[g] = g < count ? number(y[g * launch.node.width]) : 0.0f;
    if (part.fields[kExpert] >= 0) {
      const P* b = static_cast<const P*>(launch.b[blockIdx.y]) + h;
#pragma unroll kUnrolled
      for (int64_t r = 0; r < part.rank; ++r) {
        const float weight = number(b[r * part.width]);
        for (int g = 0; g < G; ++g) d[g] += low[r].of[g] * weight;
      }
    }
    for (int field = 0; field < kFields; ++field) {
      if (part.fields[field] < 0) continue;
      float mixed[G] = {};
      for (int e = 0; e < experts; ++e) {
        float value = 0;
        int last_read = 0;  // neighbouring tokens with the same skill share a read
        for (int g = 0; g < G; ++g) {
          if (e ? skills[g] >= 0 : skills[g] == 0) continue;  // the token's skill has no such expert
          if (skills[g] != last_read) value = number(segment(skills[g], e)[part.fields[field] + h]);
          last_read = skills[g];
          mixed[g] += weights[e].of[g] * value;
        }
      }
      for (int g = 0; g < G; ++g)
        change[g] += mixed[g] * (field == kExpert ? d[g] : field == kGain ? frozen[g] : 1.0f);
    }
    for (int g = 0; g < count; ++g) {
      const int64_t i = at + g * launch.node.width;
      if (skills[g]) set(static_cast<T*>(launch.job.out)[i], (frozen[g] + change[g]) * factor(i));
      else copy(i);
    }
  }

  __device__ float factor(int64_t i) const {
    return launch.job.factor ? number(static_cast<const T*>(launch.job.factor)[i]) : 1.0f;
  }

  // Writes element i as it is without a skill.
  __device__ void copy(int64_t i) const {
    const T y = static_cast<const T*>(launch.job.y)[i];
    T& out = static_cast<T*>(launch.job.out)[i];
    if (launch.job.factor) set(out, number(y) * factor(i));
    else out = y;
  }
};

template <int G, class T, class P>
__global__ void __launch_bounds__(kThreads, 2) lime_linear(const __grid_constant__ Launch launch) {
  LIME_SHARED(shared);
  const Layout layout(G, launch.node.part[blockIdx.y].rank, launch.node.routing);
  Block<G, T, P>(launch, reinterpret_cast<float*>(shared), layout).run();
}

}  // namespace lime::cuda
