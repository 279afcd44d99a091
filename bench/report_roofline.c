/* Rooflines of one machine as a picture (SVG, light or dark as the reader has it): what computes,
 * over flops per byte, below the peak of its multiply-adds and the bandwidths of the caches
 * (Williams, Waterman, Patterson, CACM 52(4), 2009); and what moves bytes, over their number, below
 * what a copy of as many bytes reaches. One thread, operands hot, the ISA in use. */
#include "panel.h"
#include "report.h"

#include <math.h>
#include <string.h>
#include <strings.h>

enum { WIDTH = 1020, HEIGHT = 470, TOP = 56, BOTTOM = 400, LEVELS = 4, FAMILIES = 8 };

static const char *const level_name[LEVELS] = {"L1", "L2", "L3", "memory"};

static const char style[] =
    "<style>"
    "svg{--text:#1b1f24;--soft:#57606a;--grid:#e6e9ed;--page:#fff;--c0:#0072b2;--c1:#d55e00;"
    "--c2:#009e73;--c3:#b5579a;--c4:#9a7500;--roof:#1b1f24}"
    "@media(prefers-color-scheme:dark){svg{--text:#e4e7eb;--soft:#a3acb8;--grid:#2b3139;"
    "--page:#15181c;--c0:#56b4e9;--c1:#f08a3c;--c2:#33c79c;--c3:#dd93c4;--c4:#f0d442;"
    "--roof:#e4e7eb}}"
    ".page{fill:var(--page)}text{fill:var(--text);paint-order:stroke;stroke:var(--page);stroke-"
    "width:3px;font:12px system-ui,'DejaVu Sans',sans-serif}"
    ".soft{fill:var(--soft)}.title{font-weight:600;font-size:14px}.end{text-anchor:end}"
    ".middle{text-anchor:middle}.grid{stroke:var(--grid)}"
    ".roof{stroke:var(--roof);fill:none;stroke-width:1.6}"
    ".thin{stroke:var(--soft);fill:none;stroke-width:1;stroke-dasharray:5 3}"
    ".c0{fill:var(--c0)}.c1{fill:var(--c1)}.c2{fill:var(--c2)}.c3{fill:var(--c3)}.c4{fill:var(--c4)"
    "}"
    ".mark{stroke:var(--page);stroke-width:.7}"
    "</style>\n";

/* What belongs together, by the beginning of an operation's name. */
struct family {
    const char *name;
    const char *ops[FAMILIES];
};
static const struct family computing[] = {{"products", {"sgemm"}},
                                          {"SVD rebuild", {"svd_rebuild"}},
                                          {"attention", {"attention"}},
                                          {"model", {"model"}},
                                          {NULL, {NULL}}};
static const struct family moving[] = {
    {"softmax", {"softmax"}},
    {"norms", {"layer_norm", "rms_norm"}},
    {"exp, GELU, SiLU", {"exp", "gelu", "silu"}},
    {"one step per element", {"relu", "add", "scale_columns", "dropout", "mean"}},
    {NULL, {NULL}}};

static int family_of(const struct family *families, const char *op)
{
    for (int i = 0; families[i].name != NULL; i++) {
        for (int j = 0; j < FAMILIES && families[i].ops[j] != NULL; j++) {
            if (strncmp(op, families[i].ops[j], strlen(families[i].ops[j])) == 0) {
                return i;
            }
        }
    }
    return -1;
}

/* Each family has a shape of its own too. */
static void put_mark(t2_text *svg, int family, double x, double y)
{
    switch (family) {
    case 0:
        t2_text_printf(svg, "<circle class=\"mark c0\" cx=\"%.1f\" cy=\"%.1f\" r=\"3.6\"/>", x, y);
        break;
    case 1:
        t2_text_printf(svg,
                       "<rect class=\"mark c1\" x=\"%.1f\" y=\"%.1f\" width=\"7\" height=\"7\"/>",
                       x - 3.5, y - 3.5);
        break;
    case 2:
        t2_text_printf(svg, "<path class=\"mark c2\" d=\"M%.1f %.1fl4.4 7.6h-8.8z\"/>", x, y - 4.6);
        break;
    default:
        t2_text_printf(svg, "<path class=\"mark c3\" d=\"M%.1f %.1fl4.8 4.8-4.8 4.8-4.8-4.8z\"/>",
                       x, y - 4.8);
    }
}

/* A power of two or ten in words of a few characters. */
static void put_amount(t2_text *svg, double value, int bytes)
{
    if (bytes && value >= 1024.0) {
        int power = value >= 0x1p30 ? 3 : value >= 0x1p20 ? 2 : 1;
        t2_text_printf(svg, "%g %ciB", value / ldexp(1.0, 10 * power), "?KMG"[power]);
    } else {
        t2_text_printf(svg, bytes ? "%g B" : "%g", value);
    }
}

static void put_axes(const struct panel *p, double x_step, int bytes, const char *title,
                     const char *x_label, const char *y_label)
{
    for (double x = p->x_low; x <= p->x_high * 1.001; x *= x_step) {
        double at = panel_x(p, x);
        t2_text_printf(p->svg, "<path class=\"grid\" d=\"M%.1f %dV%d\"/>", at, TOP, BOTTOM);
        t2_text_printf(p->svg, "<text class=\"soft middle\" x=\"%.1f\" y=\"%d\">", at, BOTTOM + 17);
        put_amount(p->svg, x, bytes);
        t2_text_str(p->svg, "</text>\n");
    }
    for (double y = p->y_low; y <= p->y_high * 1.001; y *= 2.0) {
        double at = panel_y(p, y);
        t2_text_printf(p->svg, "<path class=\"grid\" d=\"M%.1f %.1fH%.1f\"/>", p->left, at,
                       p->right);
        t2_text_printf(p->svg, "<text class=\"soft end\" x=\"%.1f\" y=\"%.1f\">%g</text>\n",
                       p->left - 6.0, at + 4.0, y);
    }
    t2_text_printf(p->svg, "<text class=\"title\" x=\"%.1f\" y=\"22\">%s</text>", p->left, title);
    t2_text_printf(p->svg, "<text class=\"soft\" x=\"%.1f\" y=\"40\">%s</text>", p->left, y_label);
    t2_text_printf(p->svg, "<text class=\"soft end\" x=\"%.1f\" y=\"%d\">%s</text>\n", p->right,
                   BOTTOM + 34, x_label);
}

static void put_legend(const struct panel *p, const struct family *families)
{
    double x = p->left;
    for (int i = 0; families[i].name != NULL; i++) {
        put_mark(p->svg, i, x + 5.0, HEIGHT - 14.0);
        t2_text_printf(p->svg, "<text x=\"%.1f\" y=\"%d\">%s</text>\n", x + 14.0, HEIGHT - 10,
                       families[i].name);
        x += 30.0 + 7.0 * (double)strlen(families[i].name);
    }
}

/* Points within the panel, each with its name and figures as a tooltip; how many. */
static int put_points(const struct panel *p, const struct report_file *file, int threads, int flops)
{
    int count = 0;
    for (int i = 0; i < file->bests; i++) {
        const struct result_row *row = file->best[i];
        int is_flops = strcmp(row->rate_unit, "GFLOP/s") == 0;
        int family = family_of(flops ? computing : moving, row->op);
        double x = flops ? row->intensity : row->rate * row->median;
        if (is_flops != flops || family < 0 || row->threads != threads || !(x > 0.0) ||
            strcmp(row->operands, "hot") != 0) {
            continue;
        }
        count++;
        t2_text_str(p->svg, "<g><title>");
        report_escape(p->svg, row->name);
        t2_text_printf(p->svg, ": %.1f %s, %.0f %% of its limit</title>", row->rate,
                       is_flops ? "GFLOP/s" : "GB/s", 100.0 * row->limit_share);
        put_mark(p->svg, family, panel_x(p, fmin(fmax(x, p->x_low), p->x_high)),
                 panel_y(p, fmin(fmax(row->rate, p->y_low), p->y_high)));
        t2_text_str(p->svg, "</g>\n");
    }
    return count;
}

/* Bandwidth times intensity up to the peak of the multiply-adds. */
static void put_roofs(const struct panel *p, const struct results *r, const char *isa, int threads)
{
    double fma = report_peak(r, "fma", isa, "", threads);
    double highest = report_peak(r, "read", "", level_name[0], threads);
    for (int i = 0; i < LEVELS; i++) {
        double read = report_peak(r, "read", "", level_name[i], threads);
        double low = fmax(p->x_low, p->y_low / read), ridge = fma / read;
        if (!(read > 0.0) || ridge <= low) {
            continue;
        }
        t2_text_printf(p->svg, "<path class=\"%s\" d=\"M%.1f %.1fL%.1f %.1f\"/>",
                       i == 0 ? "roof" : "thin", panel_x(p, low), panel_y(p, low * read),
                       panel_x(p, ridge), panel_y(p, fma));
        t2_text_printf(p->svg, "<text class=\"soft\" x=\"%.1f\" y=\"%.1f\">%s</text>\n",
                       panel_x(p, low) + 14.0, panel_y(p, low * read) + 9.0, level_name[i]);
        t2_text_printf(
            p->svg, "<text class=\"soft end\" x=\"%.1f\" y=\"%d\">%s: read at %.0f GB/s</text>\n",
            p->right - 6.0, BOTTOM - 60 + 17 * i, level_name[i], read);
    }
    t2_text_printf(p->svg, "<path class=\"roof\" d=\"M%.1f %.1fH%.1f\"/>",
                   panel_x(p, highest > 0.0 ? fma / highest : p->x_low), panel_y(p, fma), p->right);
    t2_text_printf(p->svg, "<text class=\"end\" x=\"%.1f\" y=\"%.1f\">FMA ", p->right,
                   panel_y(p, fma) - 6.0);
    report_escape(p->svg, isa);
    t2_text_printf(p->svg, " %.1f GFLOP/s</text>\n", fma);
}

static double cache_bytes(const struct results *r, int level)
{
    json_t *caches = report_get(r->context, "machine", "caches", NULL), *cache;
    size_t i;
    json_array_foreach(caches, i, cache)
    {
        const char *type = json_string_value(json_object_get(cache, "type"));
        if (json_integer_value(json_object_get(cache, "level")) == level && type != NULL &&
            strcasecmp(type, "Instruction") != 0) {
            return (double)json_integer_value(json_object_get(cache, "bytes"));
        }
    }
    return 0.0;
}

/* What a copy reaches, by the level that holds the bytes. */
static void put_steps(const struct panel *p, const struct results *r, int threads)
{
    double from = p->x_low;
    for (int i = 0; i < LEVELS; i++) {
        double copy = report_peak(r, "copy", "", level_name[i], threads);
        double to = i + 1 < LEVELS ? cache_bytes(r, i + 1) : p->x_high;
        if (!(copy > 0.0) || to <= from) {
            continue;
        }
        double y = panel_y(p, copy), middle = (panel_x(p, from) + panel_x(p, to)) / 2.0;
        t2_text_printf(p->svg, "<path class=\"roof\" d=\"M%.1f %.1fH%.1f\"/>", panel_x(p, from), y,
                       panel_x(p, to));
        t2_text_printf(p->svg, "<text class=\"middle\" x=\"%.1f\" y=\"%.1f\">%s %.0f</text>\n",
                       middle, y - 6.0, level_name[i], copy);
        from = to;
    }
}

int report_roofline(const struct report_file *file, t2_text *svg)
{
    const struct results *r = &file->results;
    const int threads = report_least_threads(r);
    const char *isa = report_string(report_get(r->context, "machine", NULL), "isa", "active");
    const double fma = report_peak(r, "fma", isa, "", threads);
    const double copy = report_peak(r, "copy", "", "L1", threads);
    if (!(fma > 0.0 && copy > 0.0)) {
        return -1;
    }
    t2_text_printf(svg,
                   "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" role=\"img\">\n"
                   "<title>Rooflines of ",
                   WIDTH, HEIGHT);
    report_escape(svg, r->label);
    t2_text_str(svg, "</title>\n");
    t2_text_str(svg, style);
    t2_text_printf(svg, "<rect class=\"page\" width=\"%d\" height=\"%d\"/>\n", WIDTH, HEIGHT);
    double top = pow(2.0, ceil(log2(1.2 * fma)));
    struct panel flops = {svg, 44.0, 490.0, TOP, BOTTOM, 0x1p-2, 0x1p10, top / 256.0, top};
    put_axes(&flops, 4.0, 0, "Computing", "flops per byte of the operands", "GFLOP/s");
    int points = put_points(&flops, file, threads, 1);
    put_roofs(&flops, r, isa, threads);
    put_legend(&flops, computing);
    top = pow(2.0, ceil(log2(1.2 * copy)));
    struct panel bytes = {svg, 546.0, 992.0, TOP, BOTTOM, 0x1p10, 0x1p28, top / 256.0, top};
    put_axes(&bytes, 8.0, 1, "Moving bytes", "bytes of operands and result", "GB/s");
    points += put_points(&bytes, file, threads, 0);
    put_steps(&bytes, r, threads);
    put_legend(&bytes, moving);
    t2_text_str(svg, "</svg>\n");
    return points > 0 ? 0 : -1;
}
