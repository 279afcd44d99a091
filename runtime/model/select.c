/* The notebook's choice of an expert: int(mean * n) % n in Python.
 *
 * Python multiplies in double, truncates towards zero and takes a remainder with the sign of n.
 * fmod() is exact however large the mean is; a cast to an integer would not be. */
#include "io/error.h"
#include "model/model.h"

#include <math.h>

t2_choice t2_choose_expert(float mean, int64_t n, int64_t *index)
{
    double count = n > 0 ? (double)n : 0.0;
    double scaled = (double)mean * count; /* infinity times no experts is NaN, as in Python */
    if (isnan(scaled)) {
        return T2_CHOICE_NAN_MEAN;
    }
    if (isinf(scaled)) {
        return T2_CHOICE_INF_MEAN;
    }
    if (n <= 0) {
        return T2_CHOICE_NO_EXPERTS;
    }
    double remainder = fmod(trunc(scaled), count);
    if (remainder < 0.0) {
        remainder += count;
    }
    *index = (int64_t)remainder;
    return T2_CHOICE_OK;
}

const char *t2_choice_str(t2_choice choice)
{
    switch (choice) {
    case T2_CHOICE_OK:
        return "ok";
    case T2_CHOICE_NAN_MEAN:
        return "nan_mean";
    case T2_CHOICE_INF_MEAN:
        return "inf_mean";
    case T2_CHOICE_NO_EXPERTS:
        return "no_experts";
    }
    return "unknown";
}

t2_status t2_fail_choice(t2_error *err, t2_choice choice, float mean, const char *where)
{
    if (choice == T2_CHOICE_NO_EXPERTS) {
        return t2_fail(err, T2_ERR_NUMERIC,
                       "%s: no expert can be chosen: the model has no experts (no_experts)", where);
    }
    if (choice == T2_CHOICE_INF_MEAN) {
        return t2_fail(
            err, T2_ERR_NUMERIC,
            "%s: no expert can be chosen: the mean of the attention output is %sinfinite "
            "(inf_mean)",
            where, mean < 0.0f ? "minus " : "");
    }
    return t2_fail(err, T2_ERR_NUMERIC,
                   "%s: no expert can be chosen: the mean of the attention output is not a number "
                   "(nan_mean); a query with every key blocked or an empty input does that",
                   where);
}
