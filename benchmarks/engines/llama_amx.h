// Workaround for building llama.cpp with GCC 12 on a processor with AMX: compile with -include this file.
//
// GCC 12's _tile_loadconfig declares only the first 8 of the 64 bytes that ldtilecfg reads. The optimiser then moves
// the stores of the other bytes behind the instruction, the tiles remain unconfigured, and llama.cpp stops with an
// illegal instruction on its first prompt. GCC 13 is correct.

#if defined(__AMX_TILE__) && defined(__GNUC__) && !defined(__clang__) && __GNUC__ < 13
#include <immintrin.h>
#define _tile_loadconfig(config) __asm__ volatile("ldtilecfg %0" ::"m"(*(const char(*)[64])(config)) : "memory")
#endif
