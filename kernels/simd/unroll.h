/* T2K_UNROLL before a loop of constant length: unrolled whole, so that the array of vectors it
 * walks lives in registers. gcc 12 keeps such arrays in memory without it; each compiler obeys its
 * own words only. */
#ifndef T2K_UNROLL_H
#define T2K_UNROLL_H

#if defined(__clang__)
#define T2K_UNROLL _Pragma("clang loop unroll(full)")
#else
#define T2K_UNROLL _Pragma("GCC unroll 64")
#endif

#endif
