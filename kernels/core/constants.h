/* The constants that shape a sum: part of the same-bits contract (docs/numerics.md), the same for
 * every ISA. Changing one changes results. */
#ifndef T2K_CONSTANTS_H
#define T2K_CONSTANTS_H

#define T2K_CHUNK_K 256          /* products: k per chain of fused multiply-adds (rule 1) */
#define T2K_LANES 64             /* virtual lanes of a sum along a row (rule 7) */
#define T2K_CHUNK_ROWS 256       /* column sums: rows per chain (rule 8) */
#define T2K_SQUARES 4096         /* sums of squares: elements per block of lanes (rule 9) */
#define T2K_ATTENTION_KEYS 64    /* keys per block of the online softmax (rule 11) */
#define T2K_ATTENTION_QUERIES 64 /* queries per kernel call, and per block of sums of dk and dv */
#define T2K_ATTENTION_FEW 8      /* rows of q that a kernel call takes one by one; no sum either */
#define T2K_ATTENTION_SHORT 16   /* up to this many queries and keys several heads are one call: */
#define T2K_ATTENTION_HEADS 4    /* this many at most, also in decoding */
#define T2K_ATTENTION_KEPT 16    /* blocks of keys whose weights are kept for gradients; no sum */
#define T2K_ATTENTION_WIDTH 1024 /* largest head_dim: its workspace fits a thread's */

#endif
