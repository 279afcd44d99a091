/* Two kinds of chart. rowChart: a line per thing with a bar or marks on a logarithmic axis of
   ratios. xyChart: curves and points over two axes. */

function logScale(low, high, from, to) {
    const span = Math.log(high / low);
    return (v) => from + (to - from) * Math.log(v / low) / span;
}
function linearScale(low, high, from, to) {
    return (v) => from + (to - from) * (v - low) / (high - low);
}
/* 1, 2, 5, 10, ... within [low, high], thinned out so that at most `most` are left. */
function logTicks(low, high, most) {
    for (const steps of [[1, 1.5, 2, 3, 4, 5, 7], [1, 1.5, 2, 3, 5, 7], [1, 2, 5], [1], null]) {
        const ticks = [];
        const first = Math.floor(Math.log10(low));
        const last = Math.ceil(Math.log10(high));
        const stride = steps === null ? Math.ceil((last - first) / most) : 1;
        for (let decade = first; decade <= last; decade += stride) {
            for (const step of steps || [1]) {
                const tick = step * Math.pow(10, decade);
                if (tick >= low * 0.999 && tick <= high * 1.001) {
                    ticks.push(tick);
                }
            }
        }
        if (ticks.length <= most || steps === null) {
            return ticks;
        }
    }
    return [];
}
/* Powers of two; where they are too many, of four and so on. */
function doublingTicks(low, high, most) {
    const first = Math.ceil(Math.log2(low) - 1e-9);
    const last = Math.floor(Math.log2(high) + 1e-9);
    const stride = Math.max(1, Math.ceil((last - first + 1) / most));
    const ticks = [];
    for (let power = Math.ceil(first / stride) * stride; power <= last; power += stride) {
        ticks.push(Math.pow(2, power));
    }
    return ticks;
}
/* Those of the values that stand at least `room` apart on the scale. */
function apart(values, scale, room) {
    const kept = [];
    for (const value of values.slice().sort((a, b) => b - a)) {
        if (kept.length === 0 || scale(kept[kept.length - 1]) - scale(value) >= room) {
            kept.push(value);
        }
    }
    return kept;
}
function linearTicks(high, most) {
    const raw = high / most;
    const unit = Math.pow(10, Math.floor(Math.log10(raw)));
    const step = unit * [1, 2, 5, 10].find((s) => s * unit >= raw);
    const ticks = [];
    for (let tick = 0; tick <= high * 1.0001; tick += step) {
        ticks.push(tick);
    }
    return ticks;
}
function plain(x) {
    return x >= 1e6 ? number(x / 1e6) + "M" : x >= 1e4 ? number(x / 1e3) + "k" :
        x >= 1 ? String(Math.round(x * 100) / 100) : String(Number(x.toPrecision(2)));
}

const RULER = document.createElement("canvas").getContext("2d");
function textWidth(text, bold) {
    RULER.font = (bold ? "bold " : "") + "12px system-ui, 'DejaVu Sans', sans-serif";
    return RULER.measureText(text).width;
}
function cut(text, room) {
    if (textWidth(text) <= room) {
        return text;
    }
    let n = text.length;
    while (n > 1 && textWidth(text.slice(0, n) + "\u2026") > room) {
        n--;
    }
    return text.slice(0, n) + "\u2026";
}

/* The width that a chart in this element has. */
function roomIn(host) {
    const style = getComputedStyle(host);
    return Math.max(260, host.clientWidth - parseFloat(style.paddingLeft) -
        parseFloat(style.paddingRight));
}

/* rows: {label, value, tip, bar: ratio or null, low, high, marks: [{x, style}], join}.
   options: {label: what the axis shows, least, most: ratios the axis must hold, doubling: ticks at
   powers of two, limit: of rows before the rest is asked for}. */
function rowChart(host, rows, options) {
    const limit = options.limit || 40;
    if (rows.length > limit && !options.all) {
        const more = html("button", { type: "button", class: "more" },
            `Show all ${rows.length} (the first ${limit} are shown)`);
        const box = html("div");
        more.addEventListener("click", () => {
            box.remove();
            rowChart(host, rows, Object.assign({}, options, { all: true }));
        });
        host.append(box);
        rowChart(box, rows.slice(0, limit), options);
        box.append(more);
        return;
    }
    const w = roomIn(host);
    const widest = Math.max(...rows.map((row) => textWidth(row.label))) + 14;
    const left = Math.min(widest, Math.max(100, w * 0.47));
    const right = Math.max(...rows.map((row) => textWidth(row.value, true))) + 14;
    const rowHeight = 22;
    const top = 8;
    const bottom = top + rows.length * rowHeight;
    const values = rows.flatMap((row) =>
        row.marks.map((m) => m.x).concat([row.bar, row.low, row.high].filter((v) => v > 0)));
    const low = Math.min(options.least, ...values) / 1.08;
    const high = Math.max(options.most, ...values) * 1.08;
    const x = logScale(low, high, left, w - right);
    const chart = svg("svg", {
        viewBox: `0 0 ${w} ${bottom + 40}`, role: "img", "aria-label": options.label,
        class: "chart",
    });
    const ticks = options.doubling ? doublingTicks : logTicks;
    for (const tick of ticks(low, high, Math.max(3, Math.floor((w - left - right) / 44)))) {
        chart.append(
            svg("line", { x1: x(tick), x2: x(tick), y1: top, y2: bottom, class: "grid" }),
            svg("text", { x: x(tick), y: bottom + 15, "text-anchor": "middle", class: "soft" },
                plain(tick) + "\u00d7"));
    }
    const middle = (left + w - right) / 2;
    const room = Math.min(middle, w - middle) * 2 - 8;
    chart.append(svg("text", { x: middle, y: bottom + 33, "text-anchor": "middle", class: "soft" },
        cut(options.label, room)));
    rows.forEach((row, i) => {
        chart.append(drawRow(row, top + i * rowHeight, rowHeight, { x, left, w }));
    });
    chart.append(svg("line", { x1: x(1), x2: x(1), y1: top - 4, y2: bottom + 2, class: "one" }));
    host.append(chart);
}
function drawRow(row, y, rowHeight, { x, left, w }) {
    const middle = y + rowHeight / 2;
    const group = svg("g", { class: "row" },
        svg("rect", { x: 0, y, width: w, height: rowHeight, class: "hit" }),
        svg("text", { x: left - 10, y: middle + 4, "text-anchor": "end" },
            cut(row.label, left - 12)),
        svg("text", { x: w - 4, y: middle + 4, "text-anchor": "end", "font-weight": "600" },
            row.value));
    if (row.bar > 0) {
        group.append(svg("rect", {
            x: Math.min(x(1), x(row.bar)), y: y + 4, height: rowHeight - 8,
            width: Math.max(0.5, Math.abs(x(row.bar) - x(1))),
            class: row.bar >= 1 ? "bar-ahead" : "bar-behind",
        }));
    }
    if (row.low > 0 && row.high > 0) {
        group.append(svg("path", {
            d: `M${x(row.low)},${middle}H${x(row.high)}` +
                `M${x(row.low)},${middle - 4}v8M${x(row.high)},${middle - 4}v8`,
            class: "whisker", fill: "none",
        }));
    }
    if (row.join && row.marks.length > 1) {
        const ends = row.marks.map((m) => x(m.x));
        group.append(svg("line", {
            x1: Math.min(...ends), x2: Math.max(...ends), y1: middle, y2: middle, class: "join",
        }));
    }
    for (const m of row.marks) {
        group.append(mark(x(m.x), middle, m.style));
    }
    return withTip(group, row.tip);
}

/* spec: {x: {label, low, high, format}, y: {label, low, high, log, format},
   lines: [{points: [[x, y, tip]], kind, style: of its marks, label, turn: which of several labels
   this is}], points: [{x, y, style, tip}]} */
function xyChart(host, spec) {
    const w = roomIn(host);
    const h = Math.min(380, Math.max(280, Math.round(w * 0.62)));
    const area = { left: 54, right: w - 24, top: 12, bottom: h - 42 };
    const x = logScale(spec.x.low, spec.x.high, area.left, area.right);
    const scale = spec.y.log ? logScale : linearScale;
    const y = scale(spec.y.low, spec.y.high, area.bottom, area.top);
    const chart = svg("svg", {
        viewBox: `0 0 ${w} ${h}`, role: "img", "aria-label": `${spec.y.label} over ${spec.x.label}`,
        class: "chart",
    });
    drawAxes(chart, spec, area, x, y);
    const labels = [];
    const near = [];
    for (const line of spec.lines) {
        const d = line.points.map(([a, b], i) => `${i > 0 ? "L" : "M"}${x(a)},${y(b)}`).join("");
        chart.append(svg("path", {
            d, class: line.kind + (line.style === undefined ? "" : ` k${line.style % 8}`),
        }));
        if (line.label) {
            labels.push(lineLabel(line, area, x, y));
        }
        if (line.style !== undefined) {
            for (const [a, b, text] of line.points) {
                chart.append(mark(x(a), y(b), line.style, 4));
                near.push({ x: x(a), y: y(b), tip: text });
            }
        }
    }
    for (const point of spec.points || []) {
        chart.append(mark(x(point.x), y(point.y), point.style, 4.2));
        near.push({ x: x(point.x), y: y(point.y), tip: point.tip });
    }
    chart.append(...labels);
    host.append(chart);
    nearTips(chart, near, w);
}
function drawAxes(chart, spec, area, x, y) {
    const room = area.right - area.left;
    for (const tick of spec.x.ticks ? apart(spec.x.ticks, x, 44) :
        logTicks(spec.x.low, spec.x.high, Math.floor(room / 52))) {
        chart.append(
            svg("line", { x1: x(tick), x2: x(tick), y1: area.top, y2: area.bottom, class: "grid" }),
            svg("text", { x: x(tick), y: area.bottom + 16, "text-anchor": "middle", class: "soft" },
                (spec.x.format || plain)(tick)));
    }
    const most = Math.floor((area.bottom - area.top) / 30);
    for (const tick of spec.y.log ? logTicks(spec.y.low, spec.y.high, most) :
        linearTicks(spec.y.high, most)) {
        chart.append(
            svg("line", { x1: area.left, x2: area.right, y1: y(tick), y2: y(tick), class: "grid" }),
            svg("text", { x: area.left - 6, y: y(tick) + 4, "text-anchor": "end", class: "soft" },
                (spec.y.format || plain)(tick)));
    }
    chart.append(
        svg("path", {
            d: `M${area.left},${area.top}V${area.bottom}H${area.right}`, class: "axis",
            fill: "none",
        }),
        svg("text", {
            x: (area.left + area.right) / 2, y: area.bottom + 34, "text-anchor": "middle",
            class: "soft",
        }, cut(spec.x.label, room)),
        svg("text", {
            x: 12, y: (area.top + area.bottom) / 2, "text-anchor": "middle", class: "soft",
            transform: `rotate(-90 12 ${(area.top + area.bottom) / 2})`,
        }, spec.y.label));
}
/* A label interrupts its line; those of neighbours stand apart, since the lines may be close. The
   only line of its kind has it above its right end. */
function lineLabel(line, area, x, y) {
    const [[ax, ay], [bx, by]] = line.points;
    const from = [x(ax), y(ay)];
    const to = [x(bx), y(by)];
    if (line.turn === undefined) {
        return svg("text", { x: area.right - 2, y: to[1] - 5, "text-anchor": "end",
            class: "small halo" }, line.label);
    }
    const flat = Math.abs(from[1] - to[1]) < 1;
    const share = flat ? 0.95 - 0.13 * (line.turn % 4) : 0.2 + 0.35 * (line.turn % 2);
    return svg("text", {
        x: from[0] + share * (to[0] - from[0]), y: from[1] + share * (to[1] - from[1]) + 4,
        "text-anchor": "middle", class: "small halo",
    }, line.label);
}
/* Hovering or tapping shows the tip of the nearest point. */
function nearTips(chart, points, w) {
    const ring = svg("circle", { r: 8, fill: "none", class: "one", visibility: "hidden" });
    chart.append(ring);
    const show = (event) => {
        const box = chart.getBoundingClientRect();
        const scale = w / box.width;
        const x = (event.clientX - box.left) * scale;
        const y = (event.clientY - box.top) * scale;
        let best = null;
        let least = 26 * 26;
        for (const point of points) {
            const distance = (point.x - x) ** 2 + (point.y - y) ** 2;
            if (distance < least) {
                least = distance;
                best = point;
            }
        }
        ring.setAttribute("visibility", best === null ? "hidden" : "visible");
        if (best === null) {
            hideTip();
            return;
        }
        ring.setAttribute("cx", best.x);
        ring.setAttribute("cy", best.y);
        showTip(best.tip, event);
    };
    chart.addEventListener("pointermove", show);
    chart.addEventListener("pointerdown", show);
    chart.addEventListener("pointerleave", () => {
        ring.setAttribute("visibility", "hidden");
        hideTip();
    });
}
