/* embed.h - files of the source tree inside the program.
 *
 * BENCH_EMBED(name, "bench/some/file") at file scope defines `name` (the file's bytes, a NUL behind
 * them) and `name_end` (the address of that NUL). The path is relative to where the compiler runs,
 * the repository's root; the Makefile names these files as what the object depends on.
 */
#ifndef T2_BENCH_EMBED_H
#define T2_BENCH_EMBED_H

#define BENCH_EMBED(name, path)                                              \
    __asm__(".pushsection .rodata\n" #name ":\n.incbin \"" path "\"\n" #name \
            "_end:\n.byte 0\n.popsection\n");                                \
    extern const unsigned char name[] __attribute__((visibility("hidden"))); \
    extern const unsigned char name##_end[] __attribute__((visibility("hidden")))

#endif
