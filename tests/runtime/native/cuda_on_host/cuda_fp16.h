// fp16 for the host build of the CUDA operator; replaces NVIDIA's header of the same name.
#pragma once
#include <cmath>
#include <cstdint>

struct __half {
  uint16_t bits;
};

inline float __half2float(__half half) {
  const int exponent = (half.bits >> 10) & 31, fraction = half.bits & 1023;
  float size = std::ldexp(float(exponent ? 1024 + fraction : fraction), (exponent ? exponent : 1) - 25);
  if (exponent == 31) size = fraction ? NAN : INFINITY;
  return half.bits & 0x8000 ? -size : size;
}

// Rounds to nearest, ties to even, like std::nearbyint in the default rounding mode.
inline __half __float2half_rn(float value) {
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  const float size = std::fabs(value);
  if (std::isnan(value)) return {uint16_t(sign | 0x7e00)};
  if (size >= 65520.0f) return {uint16_t(sign | 0x7c00)};
  int exponent = 0;
  std::frexp(size, &exponent);
  const int place = exponent < -13 ? -24 : exponent - 11;  // exponent of the last bit
  const int whole = int(std::nearbyint(std::ldexp(size, -place)));
  // A fraction that rounds up to the next power of two carries into the exponent.
  return {uint16_t(sign | (whole + (place + 24) * 1024))};
}
