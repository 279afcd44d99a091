/* Suite rules: each rule of docs/numerics.md by its number, written down once more in plain C and
 * compared bit for bit. Rules that need no kernel, or a whole model, have their test elsewhere:
 * the table at the end of docs/numerics.md. */
#ifndef T2_MATRIX_RULES_H
#define T2_MATRIX_RULES_H

#include "matrix.h"

/* matrix_rules_rows.c */
void rule_7(struct matrix *m);
void rule_9(struct matrix *m);
void rule_14(struct matrix *m);
void rule_15(struct matrix *m);
/* exp as its site in docs/numerics.md describes it. */
float rule_exp(float x);

/* matrix_rules_attention.c */
void rule_11(struct matrix *m);
void rule_12(struct matrix *m);
void rule_13(struct matrix *m);

#endif
