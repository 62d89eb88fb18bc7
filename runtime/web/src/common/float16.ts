/** Half-precision numbers in integer arithmetic, so that the bits are those of every other implementation. */

const VALUES = new Float32Array(2 ** 16);
for (let bits = 0; bits < 2 ** 16; bits++) {
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  const size =
    exponent === 0 ? fraction * 2 ** -24 : exponent === 31 ? (fraction ? NaN : Infinity) : (1 + fraction / 1024) * 2 ** (exponent - 15);
  VALUES[bits] = bits & 0x8000 ? -size : size;
}

/** The values of half-precision numbers given as bits. */
export function fromHalf(bits: Uint16Array): Float32Array {
  const found = new Float32Array(bits.length);
  for (let at = 0; at < bits.length; at++) found[at] = VALUES[bits[at]!]!;
  return found;
}

const SINGLE = new Float32Array(1);
const BITS = new Uint32Array(SINGLE.buffer);

/** The nearest half-precision number of each value, as bits; ties go to the even one. */
export function toHalf(values: Float32Array): Uint16Array {
  const found = new Uint16Array(values.length);
  for (let at = 0; at < values.length; at++) {
    SINGLE[0] = values[at]!;
    found[at] = nearest(BITS[0]!);
  }
  return found;
}

function nearest(bits: number): number {
  const sign = (bits >>> 16) & 0x8000;
  const size = bits & 0x7fffffff;
  if (size > 0x7f800000) return sign | 0x7e00; // NaN
  if (size >= 0x477ff000) return sign | 0x7c00; // rounds to infinity
  if (size >= 0x38800000) {
    const odd = (size >>> 13) & 1;
    return sign | ((size - 0x38000000 + 0xfff + odd) >>> 13);
  }
  if (size < 0x33000000) return sign; // below half of the smallest
  const shift = 126 - (size >>> 23); // 14 to 24: denormal
  const fraction = (size & 0x7fffff) | 0x800000;
  const whole = fraction >>> shift;
  const rest = fraction & ((1 << shift) - 1);
  const half = 1 << (shift - 1);
  return sign | (whole + (rest > half || (rest === half && whole & 1) ? 1 : 0));
}
