/* How much work a pass is, and how many threads that is worth. */
#include "model/model.h"

/* One core of a server of today; what is compared with them is the cost of keeping a team in step.
 * Measured on Zen 4, 2 threads, minima: with 26 barriers a second thread gained nothing at 30 us
 * of work, 6 % at 55 us and 40 % at 240 us. */
#define FLOPS_PER_NS 80.0
#define BYTES_PER_NS 60.0     /* weights from the second or third level of cache */
#define NS_PER_BARRIER 1000.0 /* with the work lost to uneven shares */

int t2_threads_for(double flops, double bytes, double barriers, int asked)
{
    if (asked > 0) {
        return asked;
    }
    int n = t2k_get_num_threads();
    if (n <= 1 || t2k_threads_exact()) {
        return n;
    }
    double compute = flops / FLOPS_PER_NS, memory = bytes / BYTES_PER_NS;
    double work = compute > memory ? compute : memory;
    /* Each thread's share must be worth twice what it costs to keep in step. */
    double worth = work / (2.0 * NS_PER_BARRIER * barriers);
    return worth < 2.0 ? 1 : worth < (double)n ? (int)worth : n;
}

double t2_block_flops(const t2_block_config *config, int64_t queries, int64_t keys, int64_t items)
{
    double E = (double)config->embed_size, f = (double)config->forward_expansion;
    double rows = (double)queries * (double)items, key_rows = (double)keys * (double)items;
    double projections = 2.0 * E * E * (2.0 * rows + 2.0 * key_rows);
    double attention = 4.0 * rows * (double)keys * E; /* scores, and probabilities times V */
    return projections + attention + 4.0 * rows * f * E * E;
}

double t2_block_weight_bytes(const t2_block_config *config)
{
    double E = (double)config->embed_size;
    return 4.0 * E * E * (4.0 + 2.0 * (double)config->forward_expansion);
}

double t2_forward_flops(const t2_config *config, int64_t length, int64_t items)
{
    t2_block_config block = t2_config_block(config);
    double rows = (double)length * (double)items;
    return (double)config->num_layers * t2_block_flops(&block, length, length, items) +
           2.0 * rows * (double)config->embed_size * (double)config->vocab_size;
}

int t2_forward_threads(const t2_config *config, int64_t length, int64_t items, int threads)
{
    t2_block_config block = t2_config_block(config);
    double layers = (double)config->num_layers;
    double bytes = layers * t2_block_weight_bytes(&block) +
                   4.0 * (double)config->embed_size * (double)config->vocab_size;
    return t2_threads_for(t2_forward_flops(config, length, items), bytes,
                          layers * T2_BLOCK_BARRIERS + 2.0, threads);
}
