// For building llama.cpp with GCC 12 on a processor with AMX: -include this file.
//
// GCC 12's _tile_loadconfig tells the optimiser of the first 8 of the 64 bytes that ldtilecfg reads. The
// stores of the others are then moved behind it, the tiles stay without a shape, and llama.cpp ends with an
// illegal instruction on its first prompt. GCC 13 needs no such thing.

#if defined(__AMX_TILE__) && defined(__GNUC__) && !defined(__clang__) && __GNUC__ < 13
#include <immintrin.h>
#define _tile_loadconfig(config) __asm__ volatile("ldtilecfg %0" ::"m"(*(const char(*)[64])(config)) : "memory")
#endif
