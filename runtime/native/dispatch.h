// Compiles kernel.inc for every instruction set of this processor family, and chooses one when the library is loaded.
#pragma once
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "job.h"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

// GCC warns that the ABI of vectors wider than the baseline's may change; only inlined functions pass them here.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wpsabi"
#endif

#if defined(__clang__)
#define LIME_PRAGMA(text) _Pragma(#text)
#define LIME_TARGET(isa) LIME_PRAGMA(clang attribute push(__attribute__((target(isa))), apply_to = function))
#define LIME_TARGET_END LIME_PRAGMA(clang attribute pop)
#else
#define LIME_PRAGMA(text) _Pragma(#text)
#define LIME_TARGET(isa) LIME_PRAGMA(GCC push_options) LIME_PRAGMA(GCC target(isa))
#define LIME_TARGET_END LIME_PRAGMA(GCC pop_options)
#endif

#if defined(__aarch64__)
#define LIME_NAMESPACE neon
#define LIME_LANES 4
#define LIME_HALF_TO_FLOAT(h) (V)(vcvt_f32_f16((float16x4_t)(h)))
#define LIME_FLOAT_TO_HALF(v) (H)(vcvt_f16_f32((float32x4_t)(v)))
#include "kernel.inc"
#undef LIME_HALF_TO_FLOAT
#undef LIME_FLOAT_TO_HALF
#else
#define LIME_NAMESPACE generic
#define LIME_LANES 4
#include "kernel.inc"
#endif
namespace lime {
namespace baseline = LIME_NAMESPACE;
}
#undef LIME_NAMESPACE
#undef LIME_LANES

#if defined(__x86_64__)
LIME_TARGET("avx2,fma,f16c")
#define LIME_NAMESPACE avx2
#define LIME_LANES 8
#define LIME_HALF_TO_FLOAT(h) (V)(_mm256_cvtph_ps((__m128i)(h)))
#define LIME_FLOAT_TO_HALF(v) (H)(_mm256_cvtps_ph((__m256)(v), _MM_FROUND_TO_NEAREST_INT))
#include "kernel.inc"
#undef LIME_NAMESPACE
#undef LIME_LANES
#undef LIME_HALF_TO_FLOAT
#undef LIME_FLOAT_TO_HALF
LIME_TARGET_END

LIME_TARGET("avx512f,avx512vl,avx512dq,avx512bw,avx2,fma,f16c")
#define LIME_NAMESPACE avx512
#define LIME_LANES 16
#define LIME_HALF_TO_FLOAT(h) (V)(_mm512_maskz_cvtph_ps(0xffff, (__m256i)(h)))
#define LIME_FLOAT_TO_HALF(v) (H)(_mm512_maskz_cvtps_ph(0xffff, (__m512)(v), _MM_FROUND_TO_NEAREST_INT))
#include "kernel.inc"
#undef LIME_NAMESPACE
#undef LIME_LANES
#undef LIME_HALF_TO_FLOAT
#undef LIME_FLOAT_TO_HALF
LIME_TARGET_END
#endif

namespace lime {

#define LIME_SET(name)                                                                                     \
  Set {                                                                                                    \
    #name, name::L, name::kernels<float, float>(), name::kernels<float, uint16_t>(),                       \
        name::kernels<uint16_t, uint16_t>()                                                                \
  }

// The kernels for the fastest instruction set of this processor. The environment variable LIME_EDGE_CPU names a slower
// one, for tests and comparisons.
inline Set choose_set() {
  const char* wanted = std::getenv("LIME_EDGE_CPU");
  const auto taken = [wanted](const char* name) { return !wanted || !*wanted || !std::strcmp(wanted, name); };
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
  if (avx512 && taken("avx512")) return LIME_SET(avx512);
  if (avx2 && taken("avx2")) return LIME_SET(avx2);
#endif
#if defined(__aarch64__)
  (void)taken;
  return LIME_SET(neon);
#else
  return LIME_SET(generic);
#endif
}

}  // namespace lime
