/* The numbers of rows for a norm's gradient, as the norm itself finds them: mean, shift and
 * inverse, t = (z - mean) inverse + shift. Included behind tmpl/norm_columns.h. A row that the norm
 * would take again on another scale, because its sums overflow or vanish, gets NaN. */
static void norm_stats(size_t rows, size_t cols, const float *X, size_t ldx,
                       const t2k_norm_params *p, float *stats)
{
    const norm_job job = {.cols = cols, .ldx = ldx, .p = p};
    for (size_t i = 0; i < rows; i += BLOCK_ROWS) {
        norm_block b = {.rows = rows - i < BLOCK_ROWS ? rows - i : BLOCK_ROWS,
                        .x = X + i * ldx,
                        .r = p->residual != NULL ? p->residual + i * p->ldr : NULL};
        block_begin(&job, &b);
        block_middle(&job, &b);
        for (size_t k = 0; k < b.rows; k++, stats += 3) {
            const int usual = b.inverse[k] > 0 && b.inverse[k] < INFINITY;
            stats[0] = NORM_CENTERED ? b.mean[k] : 0.0f;
            stats[1] = NORM_CENTERED ? b.shift[k] : 0.0f;
            stats[2] = usual ? b.inverse[k] : NAN;
        }
    }
}
