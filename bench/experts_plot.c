/* Pictures of t2bench experts (SVG, light or dark as the reader has it). */
#include "experts.h"
#include "panel.h"

#include <math.h>

static const char style[] =
    "<style>"
    "svg{--text:#1b1f24;--soft:#57606a;--grid:#e6e9ed;--page:#fff;--c0:#0072b2;--c1:#d55e00;"
    "--c2:#009e73}"
    "@media(prefers-color-scheme:dark){svg{--text:#e4e7eb;--soft:#a3acb8;--grid:#2b3139;"
    "--page:#15181c;--c0:#56b4e9;--c1:#f08a3c;--c2:#33c79c}}"
    ".page{fill:var(--page)}text{fill:var(--text);font:12px system-ui,'DejaVu Sans',sans-serif}"
    ".soft{fill:var(--soft)}.small{font-size:10px}.title{font-weight:600;font-size:14px}"
    ".end{text-anchor:end}.middle{text-anchor:middle}.grid{stroke:var(--grid)}"
    ".l0,.l1,.l2{fill:none;stroke-width:1.8}.l0{stroke:var(--c0)}.l1{stroke:var(--c1)}"
    ".l2{stroke:var(--c2)}.c0{fill:var(--c0)}.c1{fill:var(--c1)}.c2{fill:var(--c2)}"
    ".wrong{stroke:var(--text);stroke-width:1.5}"
    "</style>\n";

static void begin(t2_text *svg, int width, int height, const char *title)
{
    t2_text_printf(svg,
                   "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" role=\"img\">\n"
                   "<title>%s</title>\n",
                   width, height, title);
    t2_text_str(svg, style);
    t2_text_printf(svg, "<rect class=\"page\" width=\"%d\" height=\"%d\"/>\n", width, height);
}

/* ---- lines ----------------------------------------------------------------------------------- */

enum { PANEL = 480, TOP = 56, BOTTOM = 360, LEFT = 58, HEIGHT = 430 };

static void put_axes(const struct panel *p, const struct experts_chart *chart)
{
    for (int i = 0; i < chart->points; i++) {
        double at = panel_x(p, chart->x[i]);
        t2_text_printf(p->svg, "<path class=\"grid\" d=\"M%.1f %dV%d\"/>", at, TOP, BOTTOM);
        t2_text_printf(p->svg, "<text class=\"soft middle\" x=\"%.1f\" y=\"%d\">%g</text>\n", at,
                       BOTTOM + 17, chart->x[i]);
    }
    for (double y = p->y_low; y <= 1.001 * p->y_high; y *= 10.0) {
        t2_text_printf(p->svg, "<path class=\"grid\" d=\"M%.1f %.1fH%.1f\"/>", p->left,
                       panel_y(p, y), p->right);
        t2_text_printf(p->svg, "<text class=\"soft end\" x=\"%.1f\" y=\"%.1f\">%g</text>\n",
                       p->left - 6.0, panel_y(p, y) + 4.0, 1e3 * y);
    }
    t2_text_printf(p->svg, "<text class=\"title\" x=\"%.1f\" y=\"22\">%s</text>", p->left,
                   chart->title);
    t2_text_printf(p->svg, "<text class=\"soft\" x=\"%.1f\" y=\"40\">milliseconds</text>", p->left);
    t2_text_printf(p->svg, "<text class=\"soft end\" x=\"%.1f\" y=\"%d\">%s</text>\n", p->right,
                   BOTTOM + 34, chart->x_label);
}

static void put_line(const struct panel *p, const struct experts_chart *chart, int line)
{
    const double *y = chart->y + line * chart->points;
    t2_text_printf(p->svg, "<path class=\"l%d\" d=\"", line);
    for (int i = 0; i < chart->points; i++) {
        t2_text_printf(p->svg, "%s%.1f %.1f", i == 0 ? "M" : "L", panel_x(p, chart->x[i]),
                       panel_y(p, y[i]));
    }
    t2_text_str(p->svg, "\"/>\n");
    for (int i = 0; i < chart->points; i++) {
        t2_text_printf(p->svg,
                       "<circle class=\"c%d\" cx=\"%.1f\" cy=\"%.1f\" r=\"3\"><title>%s, %g: "
                       "%.4g ms</title></circle>\n",
                       line, panel_x(p, chart->x[i]), panel_y(p, y[i]), chart->names[line],
                       chart->x[i], 1e3 * y[i]);
    }
}

void experts_plot_lines(t2_text *svg, const struct experts_chart *charts, int count)
{
    double low = HUGE_VAL, high = 0.0;
    for (int c = 0; c < count; c++) {
        for (int i = 0; i < charts[c].lines * charts[c].points; i++) {
            low = fmin(low, charts[c].y[i]);
            high = fmax(high, charts[c].y[i]);
        }
    }
    low = pow(10.0, floor(log10(low)));
    high = pow(10.0, ceil(log10(high)));
    begin(svg, PANEL * count + 20, HEIGHT, "Rows with experts of their own");
    for (int c = 0; c < count; c++) {
        const struct experts_chart *chart = &charts[c];
        const struct panel p = {.svg = svg,
                                .left = (double)(LEFT + PANEL * c),
                                .right = (double)(PANEL * (c + 1) - 10),
                                .top = TOP,
                                .bottom = BOTTOM,
                                .x_low = chart->x[0],
                                .x_high = chart->x[chart->points - 1],
                                .y_low = low,
                                .y_high = high};
        put_axes(&p, chart);
        for (int line = 0; line < chart->lines; line++) {
            put_line(&p, chart, line);
        }
    }
    for (int line = 0; line < charts[0].lines; line++) {
        int x = LEFT + 220 * line;
        t2_text_printf(svg, "<circle class=\"c%d\" cx=\"%d\" cy=\"%d\" r=\"4\"/>", line, x,
                       HEIGHT - 14);
        t2_text_printf(svg, "<text x=\"%d\" y=\"%d\">%s</text>\n", x + 10, HEIGHT - 10,
                       charts[0].names[line]);
    }
    t2_text_str(svg, "</svg>\n");
}

/* ---- the grid -------------------------------------------------------------------------------- */

enum { CELL = 26, NAMES = 110, HEAD = 120 };

/* The best way as a square; within it what was chosen, at the left by constants and at the right by
 * measuring, where that is another one; framed where it costs more than a tenth. */
static void put_cell(t2_text *svg, const struct experts_mark *plan,
                     const struct experts_mark *measured)
{
    const int x = NAMES + CELL * plan->column, y = HEAD + CELL * plan->row;
    t2_text_printf(svg, "<g><title>best %s; plan %s, %.2f; auto %s, %.2f</title>",
                   t2_way_str(plan->best), t2_way_str(plan->chosen), plan->over,
                   t2_way_str(measured->chosen), measured->over);
    t2_text_printf(svg,
                   "<rect class=\"c%d\" x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" "
                   "opacity=\".45\"/>",
                   (int)(plan->best - T2_WAY_REBUILD), x + 1, y + 1, CELL - 2, CELL - 2);
    const struct experts_mark *both[] = {plan, measured};
    for (int i = 0; i < 2; i++) {
        if (both[i]->chosen != both[i]->best) {
            t2_text_printf(svg, "<circle class=\"c%d%s\" cx=\"%d\" cy=\"%d\" r=\"4.5\"/>",
                           (int)(both[i]->chosen - T2_WAY_REBUILD),
                           both[i]->over > 1.1 ? " wrong" : "", x + 8 + 10 * i, y + CELL / 2);
        }
    }
    t2_text_str(svg, "</g>\n");
}

void experts_plot_grid(t2_text *svg, const char *const *rows, int row_count,
                       const char *const *columns, int column_count,
                       const struct experts_mark *plan, const struct experts_mark *measured,
                       int marks)
{
    const int width = NAMES + CELL * column_count + 20, bottom = HEAD + CELL * row_count;
    begin(svg, width, bottom + 60, "The planner's choice against the measured best");
    t2_text_str(svg, "<text class=\"title\" x=\"10\" y=\"22\">The planner's choice against the "
                     "measured best</text>");
    t2_text_str(svg, "<text class=\"soft\" x=\"10\" y=\"40\">outputs x inputs (changed "
                     "components), over rows of a call, changes of experts for each call</text>\n");
    for (int i = 0; i < row_count; i++) {
        t2_text_printf(svg, "<text class=\"soft end\" x=\"%d\" y=\"%d\">%s</text>\n", NAMES - 6,
                       HEAD + CELL * i + 17, rows[i]);
    }
    for (int i = 0; i < column_count; i++) {
        const int x = NAMES + CELL * i + 17;
        t2_text_printf(svg,
                       "<text class=\"soft small\" transform=\"translate(%d %d) rotate(-60)\">%s"
                       "</text>\n",
                       x, HEAD - 6, columns[i]);
    }
    for (int i = 0; i < marks; i++) {
        put_cell(svg, &plan[i], &measured[i]);
    }
    for (int w = 0; w < 3; w++) {
        t2_text_printf(svg,
                       "<rect class=\"c%d\" x=\"%d\" y=\"%d\" width=\"12\" height=\"12\"/>"
                       "<text x=\"%d\" y=\"%d\">%s</text>\n",
                       w, NAMES + 110 * w, bottom + 14, NAMES + 110 * w + 18, bottom + 24,
                       t2_way_str((t2_way)(T2_WAY_REBUILD + w)));
    }
    t2_text_printf(
        svg,
        "<text class=\"soft\" x=\"%d\" y=\"%d\">square: the best; circle: another one was "
        "chosen, by constants (left) or measured (right);</text><text class=\"soft\" "
        "x=\"%d\" y=\"%d\">framed: it costs more than a tenth</text>\n",
        NAMES, bottom + 42, NAMES, bottom + 56);
    t2_text_str(svg, "</svg>\n");
}
