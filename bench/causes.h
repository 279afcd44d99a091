/* causes.h - why targets are missed on a machine: a text file beside its results, KEY.causes.txt
 * beside KEY.json, which people write.
 *
 * A line of six words says which verdicts it is about: row of the table, operation, shape, ISA,
 * threads and target ("x", "x.torch", "share", "ns", "own.sgemm_nt", "gain", "mean"; "-" where the
 * case was not measured), each a pattern as of the shell. A whole set is the shape "@llm"; row 12
 * is of operation "all", shape "-" and target "slower". The indented lines below are the cause. The
 * first match holds. Lines that begin with '#' are comments.
 */
#ifndef T2_BENCH_CAUSES_H
#define T2_BENCH_CAUSES_H

#include <stddef.h>

enum { CAUSE_WORDS = 6 };

struct cause {
    char *word[CAUSE_WORDS]; /* patterns; word[0] owns the memory of all */
    char *text;
    int line, used;
};

struct causes {
    struct cause *cause;
    int count;
    char path[4096];
};

/* From a text: 0, or -1 with a text that names the line. */
int causes_parse(const char *text, struct causes *causes, char *error, size_t size);
/* Those beside a result file; none where there is no such file. 0, or -1 with a text. */
int causes_load(const char *results_path, struct causes *causes, char *error, size_t size);
/* The text for a verdict, which counts as used; NULL: none. */
const char *causes_find(struct causes *causes, const char *const word[CAUSE_WORDS]);
void causes_free(struct causes *causes);

#endif
