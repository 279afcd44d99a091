/* Many application threads that call the library at once, each result compared with what one
 * thread alone computes. Plain C: also runs under the thread sanitizer, where Criterion cannot. */
#ifndef T2_CALLERS_H
#define T2_CALLERS_H

#define CALLERS 16       /* threads of callers_run() */
#define CALLERS_CASES 12 /* different calls */

/* Computes what is expected, on one thread; leaves the default number of threads set. Zero when a
 * call failed. */
int callers_prepare(void);

/* Makes `rounds` calls beginning with number `first`; how many gave another result. */
int callers_differing(int first, int rounds);

/* CALLERS threads, each with callers_differing() of its own; the sum, -1 if one did not start. */
int callers_run(int rounds);

#endif
