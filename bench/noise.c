/* How quiet the machine was: time that the hypervisor gave to others, and the clock. */
#include "limits.h"

#include <stdio.h>
#include <string.h>

/* Steps of the chain: some 30 us at 4 GHz, so that runs fit between two ticks of a timer. */
#define STEPS 120000
#define RUNS 8 /* the fastest counts: interrupts only make a run slower */

/* Ticks of all CPUs since the start of the system: 1, or 0 where unknown. */
static int read_ticks(double *steal, double *total)
{
    FILE *f = fopen("/proc/stat", "re");
    if (f == NULL) {
        return 0;
    }
    double v[8]; /* user, nice, system, idle, iowait, irq, softirq, steal */
    int count = fscanf(f, "cpu %lf %lf %lf %lf %lf %lf %lf %lf", &v[0], &v[1], &v[2], &v[3], &v[4],
                       &v[5], &v[6], &v[7]);
    fclose(f);
    if (count != 8) {
        return 0;
    }
    *total = 0.0;
    for (int i = 0; i < 8; i++) {
        *total += v[i];
    }
    *steal = v[7];
    return 1;
}

/* An addition and an exclusive or in turn, each waiting for the one before: one cycle a step on
 * every CPU in question, and nothing that a compiler can shorten. */
static uint64_t chain(uint64_t x, uint64_t a, uint64_t b)
{
    for (int i = 0; i < STEPS / 16; i++) {
        x = ((x + a) ^ b) + a;
        x = ((x ^ b) + a) ^ b;
        x = ((x + a) ^ b) + a;
        x = ((x ^ b) + a) ^ b;
        x = (((x + a) ^ b) + a) ^ b;
    }
    return x;
}

/* The clock in GHz; 0: unknown. */
static double measure_ghz(void)
{
#ifdef __OPTIMIZE__        /* else every step goes through memory */
    static uint64_t x = 1; /* the result is the next start: no run can be dropped */
    double best = 0.0;
    for (int run = 0; run < RUNS; run++) {
        double start = bench_now();
        x = chain(x, x | 1, x >> 1);
        double seconds = bench_now() - start;
        if (seconds > 0.0 && (best == 0.0 || seconds < best)) {
            best = seconds;
        }
    }
    return best > 0.0 ? 1e-9 * STEPS / best : 0.0;
#else
    (void)chain;
    return 0.0;
#endif
}

void bench_noise_start(struct bench_noise *noise)
{
    memset(noise, 0, sizeof *noise);
    if (!read_ticks(&noise->start_steal, &noise->start_total)) {
        noise->start_total = -1.0;
    }
    bench_noise_sample(noise);
}

void bench_noise_sample(struct bench_noise *noise)
{
    double ghz = measure_ghz();
    if (ghz <= 0.0) {
        return;
    }
    noise->ghz_min = noise->samples == 0 || ghz < noise->ghz_min ? ghz : noise->ghz_min;
    noise->ghz_max = ghz > noise->ghz_max ? ghz : noise->ghz_max;
    noise->samples++;
}

json_t *bench_noise_json(const struct bench_noise *noise)
{
    json_t *steal_percent = json_null(), *drift = json_null();
    double steal, total;
    if (noise->start_total >= 0.0 && read_ticks(&steal, &total)) {
        double ticks = total - noise->start_total, stolen = steal - noise->start_steal;
        steal_percent = json_real(ticks > 0.0 && stolen > 0.0 ? 100.0 * stolen / ticks : 0.0);
    }
    int known = noise->samples > 0 && noise->ghz_max > 0.0;
    if (known) {
        drift = json_real((noise->ghz_max - noise->ghz_min) / noise->ghz_max);
    }
    json_t *json = json_object();
    json_object_set_new(json, "steal_percent", steal_percent);
    json_object_set_new(json, "ghz_min", known ? json_real(noise->ghz_min) : json_null());
    json_object_set_new(json, "ghz_max", known ? json_real(noise->ghz_max) : json_null());
    json_object_set_new(json, "drift", drift);
    return json;
}
