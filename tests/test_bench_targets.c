/* The benchmark's targets: what a line of bench/shapes/targets.txt means, and lines that are wrong;
 * the causes of those that were missed.
 * (What a run reached of them is tested by tests/bench/report.sh.) */
#include "causes.h"
#include "targets.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

static char error[1000];

Test(bench_targets, lines)
{
    struct targets targets;
    const char *text = "# what\n\nsgemm,sgemm_nt 3x5x7 row=1b x=1.04 x.mkl-cnr=3.4 share=93% "
                       "share.avx512=92.5% gain=95% # and why\n"
                       "softmax 2x9\trow=6 ns=0.36 own.exp=1.5 isa=amx\r\n"
                       "svd_rebuild @rebuild row=5 mean=1.2";
    cr_assert_eq(targets_parse(text, &targets, error, sizeof error), 0, "%s", error);
    cr_assert_eq(targets.count, 3);
    const struct target *t = targets.target;
    cr_expect_str_eq(t->row, "1b");
    cr_expect_eq(t->shapes.count, 2);
    cr_expect_str_eq(t->shapes.problem[1].op->name, "sgemm_nt");
    cr_assert_eq(t->peers, 2);
    cr_expect_str_eq(t->peer[0].name, "");
    cr_expect_eq(t->peer[0].value, 1.04);
    cr_expect_str_eq(t->peer[1].name, "mkl-cnr");
    cr_expect_eq(t->peer[1].value, 3.4);
    cr_expect_eq(target_share(t, "avx2"), 0.93);
    cr_expect_eq(target_share(t, "avx512"), 0.925);
    cr_expect_eq(t->gain, 0.95);
    cr_expect(t->set[0] == '\0' && t->isa[0] == '\0' && t->mean == 0.0 && t->ns == 0.0);
    t++;
    cr_expect_str_eq(t->row, "6");
    cr_expect_str_eq(t->isa, "amx");
    cr_expect_eq(t->ns, 0.36);
    cr_assert_eq(t->owns, 1);
    cr_expect_str_eq(t->own[0].name, "exp");
    cr_expect_eq(t->own[0].value, 1.5);
    cr_expect_eq(target_share(t, "avx512"), 0.0);
    t++;
    cr_expect_str_eq(t->set, "rebuild");
    cr_expect_eq(t->mean, 1.2);
    cr_expect_gt(t->shapes.count, 10);
    targets_free(&targets);
}

/* most=SECONDS on the nominal core: 5e10 multiply-adds and 1e10 bytes a second. */
Test(bench_targets, a_part_of_a_set)
{
    static const struct {
        const char *line;
        const char *largest;
    } cases[] = {
        {"sgemm_packed @square row=1", "2048x2048x2048"},
        {"sgemm_packed @square row=1 most=0.172", "2048x2048x2048"},
        {"sgemm_packed @square row=1 most=0.171", "1536x1536x1536"},
        {"sgemm_packed @square row=1 most=0.02", "768x768x768"},
    };
    int all = 0;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct targets targets;
        cr_assert_eq(targets_parse(cases[i].line, &targets, error, sizeof error), 0, "%s", error);
        const struct bench_shapes *shapes = &targets.target[0].shapes;
        double most = 0.0;
        const char *largest = "";
        for (int j = 0; j < shapes->count; j++) {
            if (shapes->problem[j].macs > most) {
                most = shapes->problem[j].macs;
                largest = shapes->problem[j].shape;
            }
        }
        cr_expect_str_eq(largest, cases[i].largest, "%s: %s", cases[i].line, largest);
        all = i == 0 ? shapes->count : all;
        cr_expect_eq(shapes->count + shapes->left_out, all, "%s", cases[i].line);
        targets_free(&targets);
    }
}

/* Those that are built in: every row of the table, each case once in a row. */
Test(bench_targets, built_in)
{
    struct targets targets;
    cr_assert_eq(targets_parse(bench_set_file("targets"), &targets, error, sizeof error), 0, "%s",
                 error);
    static const char *const rows[] = {"1", "1b", "2", "3", "4",  "5",
                                       "6", "7",  "8", "9", "10", "11"};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        int found = 0;
        for (int j = 0; j < targets.count; j++) {
            found |= strcmp(targets.target[j].row, rows[i]) == 0;
        }
        cr_expect(found, "row %s", rows[i]);
    }
    for (int i = 0; i < targets.count; i++) {
        for (int j = 0; j < i; j++) {
            const struct target *a = &targets.target[i], *b = &targets.target[j];
            int same = strcmp(a->row, b->row) == 0 && strcmp(a->set, b->set) == 0 &&
                       a->shapes.problem[0].op == b->shapes.problem[0].op &&
                       strcmp(a->shapes.problem[0].shape, b->shapes.problem[0].shape) == 0;
            cr_expect(!same, "row %s: %s %s twice", a->row, a->shapes.problem[0].op->name,
                      a->shapes.problem[0].shape);
        }
    }
    targets_free(&targets);
}

Test(bench_targets, bad_lines)
{
    static const struct {
        const char *line, *says;
    } bad[] = {
        {"relu 3 row=1 x=0", "x=0"},
        {"relu 3 row=1 x=-1", "x=-1"},
        {"relu 3 row=1 x=1y", "x=1y"},
        {"relu 3 row=1 x=", "x="},
        {"relu 3 row=1 x.=2", "x.=2"},
        {"relu 3 row=1 share=93", "share=93"},
        {"relu 3 row=1 gain=0.9", "gain=0.9"},
        {"relu 3 row=1 ns=3%", "ns=3%"},
        {"relu 3 row=1 own=2", "own=2"},
        {"relu 3 row=1 mean.torch=2", "mean.torch=2"},
        {"relu 3 row=1 y=2", "y=2"},
        {"sgemm @square row=1 most=0", "most=0"},
        {"sgemm @square row=1 most=1s", "most=1s"},
        {"sgemm @square row=1 most=", "most="},
        {"relu 3 row=", "row="},
        {"relu 3 row=abcdefghijklmnopqrstuvwxyz", "row=abc"},
        {"relu 3 row=1 x=1 x.a=1 x.b=1 x.c=1 x.d=1", "x.d=1"},
        {"relu 3 x=1", "row=NAME is missing"},
        {"relu @sead row=1", "unknown shape set"},
        {"rely 3 row=1", "unknown operation"},
        {"relu", "found 'relu' alone"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct targets targets;
        char text[200];
        snprintf(text, sizeof text, "exp 3 row=1\n\n%s\n", bad[i].line);
        error[0] = '\0';
        cr_expect_eq(targets_parse(text, &targets, error, sizeof error), -1, "%s", bad[i].line);
        cr_expect(strncmp(error, "line 3: ", 8) == 0 && strstr(error, bad[i].says) != NULL,
                  "%s: %s", bad[i].line, error);
    }
}

/* ---- causes ---------------------------------------------------------------------------------- */

Test(bench_targets, causes)
{
    struct causes causes;
    const char *text = "# why\n"
                       "2 sgemm_packed * avx512 [12] x\n"
                       "    The peer runs at\n"
                       "\n"
                       "\t96 % of the peak.  \n"
                       "2 sgemm* 320x768x256 avx* * x*\r\n"
                       "  later\n";
    cr_assert_eq(causes_parse(text, &causes, error, sizeof error), 0, "%s", error);
    cr_assert_eq(causes.count, 2);
    cr_expect_eq(causes.cause[1].line, 6);
    static const struct {
        const char *word[CAUSE_WORDS], *text; /* NULL: none */
    } cases[] = {
        {{"2", "sgemm_packed", "320x768x256", "avx512", "2", "x"},
         "The peer runs at 96 % of the peak."},
        {{"2", "sgemm_packed", "320x768x256", "avx512", "3", "x"}, "later"},
        {{"2", "sgemm_nt", "320x768x256", "avx2", "1", "x.torch"}, "later"},
        {{"2", "sgemm_nt", "320x768x257", "avx2", "1", "x"}, NULL},
        {{"2", "sgemm_nt", "320x768x256", "avx2", "1", "share"}, NULL},
        {{"1", "sgemm_nt", "320x768x256", "avx2", "1", "x"}, NULL},
    };
    cr_expect_eq(causes.cause[0].used + causes.cause[1].used, 0);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *found = causes_find(&causes, cases[i].word);
        cr_expect((found == NULL) == (cases[i].text == NULL), "case %zu", i);
        if (found != NULL && cases[i].text != NULL) {
            cr_expect_str_eq(found, cases[i].text);
        }
        cr_expect_eq(causes.cause[1].used, i > 0, "case %zu", i);
    }
    causes_free(&causes);
}

Test(bench_targets, bad_causes)
{
    static const struct {
        const char *text, *says;
    } bad[] = {
        {"  a text of nothing\n", "line 1: "},
        {"1 sgemm * * *\n  five words\n", "line 1: "},
        {"1 sgemm * * * x y\n  seven\n", "line 1: "},
        {"1 sgemm * * * x\n  fine\n2 sgemm * * * x\n", "line 3: "},
        {"1 sgemm * * * x", "line 1: "},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct causes causes;
        error[0] = '\0';
        cr_expect_eq(causes_parse(bad[i].text, &causes, error, sizeof error), -1, "%s",
                     bad[i].text);
        cr_expect(strncmp(error, bad[i].says, strlen(bad[i].says)) == 0, "%s: %s", bad[i].text,
                  error);
        cr_expect_eq(causes.count, 0);
    }
}
