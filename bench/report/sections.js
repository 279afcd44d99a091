/* The sections with charts. Each shows its default view first: one line per operation, few series;
   selectors lead to the rest. */

const EVERY = "";
function timed(row, state) {
    return row.time !== null && row.threads === state.threads && row.operands === state.operands;
}
const operandsSpec = { key: "operands", label: "Operands", options: choices(OPERANDS) };
function threadsSpec(values) {
    return { key: "threads", label: "Threads", options: choices(values || THREADS) };
}
function opSpec(rows, text) {
    const ops = OPS.filter((op) => rows.some((row) => row.op === op));
    return { key: "op", label: "Show", options: [[EVERY, text]].concat(choices(ops)) };
}

/* ---- peers ----------------------------------------------------------------------------------- */

const compared = TIMED.filter((row) => row.best && row.ratio > 0);

function peerMarks(rows) {
    return PEERS.map((name, i) => {
        const ratios = rows.flatMap((row) => row.peers.filter(
            (peer) => peer.name === name && peer.error === null).map((peer) => peer.ratio));
        return { name, style: i + 1, x: geomean(ratios), count: ratios.length };
    }).filter((entry) => entry.x !== null);
}
function overviewRow(label, rows) {
    const marks = peerMarks(rows);
    const mean = geomean(rows.map((row) => row.ratio));
    const cases = plural(rows.length, "case");
    const lines = [label, `${times(mean)} best peer, geometric mean of ${cases}`]
        .concat(marks.map((m) => `${times(m.x)} ${m.name} (${plural(m.count, "case")})`));
    return { label, value: times(mean), bar: mean, marks, tip: lines.join("\n") };
}
function caseRow(row) {
    const best = row.peers.find((peer) => peer.name === row.bestPeer);
    return {
        label: `${row.shape} (${row.set})`, value: times(row.ratio) + (row.noisy ? " ~" : ""),
        bar: row.ratio, low: best && best.low, high: best && best.high, marks: peerMarks([row]),
        tip: rowText(row),
    };
}
function drawPeers(host, state) {
    panels(host, FILES, (file) => {
        const rows = compared.filter((row) => row.file === file && timed(row, state) &&
            (state.op === EVERY || row.op === state.op));
        if (rows.length === 0) {
            return null;
        }
        const groups = [...groupBy(rows, (row) => row.op + " \u00b7 " + row.set)];
        const lines = state.op === EVERY ?
            groups.map(([key, members]) => overviewRow(`${key} (${members.length})`, members)) :
            rows.map(caseRow);
        const names = unique(rows.flatMap((row) => row.peers.map((peer) => peer.name)));
        return (panel) => {
            panel.append(legend([
                { bar: "bar-ahead", text: "t2 ahead of the best peer" },
                { bar: "bar-behind", text: "t2 behind" },
                ...PEERS.map((name, i) => ({ style: i + 1, text: name }))
                    .filter((item) => names.includes(item.text))]));
            rowChart(panel, lines, { label: "t2's speed / peer's speed", least: 0.7, most: 1.5 });
        };
    });
}
if (compared.length === 0) {
    nothing("peers", "No peer ran: nothing to compare t2 with. make peers installs some.");
} else {
    section("peers", [
        opSpec(compared, "all operations, by shape set (geometric means)"), threadsSpec(),
        operandsSpec], drawPeers);
}

/* ---- roofline -------------------------------------------------------------------------------- */

const FAMILIES = [
    ["sgemm", /^sgemm(_nt|_tn|_tt)?$/], ["sgemm_packed", /^sgemm_packed/],
    ["sgemm_batched", /^sgemm_batched/], ["svd_rebuild", /^svd/], ["attention", /^attention/],
    ["model", /^model/]];
function family(row) {
    const i = FAMILIES.findIndex(([, pattern]) => pattern.test(row.op));
    return i < 0 ? FAMILIES.length : i;
}
function peakOf(file, name, isa, level, threads) {
    const peak = (file.peaks || []).find((p) => p.name === name && p.isa === isa &&
        p.level === level && p.threads === threads);
    return peak !== undefined && peak.value > 0 ? peak.value : null;
}
const LEVELS = ["L1", "L2", "L3", "memory"];
/* The figures of the lines, which would not have room beside them. */
function peaksNote(first, what, rates) {
    const list = rates.map(([level, value]) => `${level} ${number(value)}`).join(", ");
    const second = list === "" ? "" : `${what} ${list} GB/s`;
    return html("p", { class: "note" }, [first, second].filter(Boolean).join("; "));
}

function drawRoofline(panel, file, rows, state) {
    const isa = state.isa === EVERY ? unique(rows.map((row) => row.isa)) : [state.isa];
    const top = Math.max(...isa.map((name) => peakOf(file, "fma", name, "", state.threads) || 0));
    const reads = LEVELS.map((level) => [level, peakOf(file, "read", "", level, state.threads)])
        .filter(([, value]) => value !== null);
    /* Room for the slopes: down to a fifth of the intensity where the first one meets the peak. */
    const knee = reads.length > 0 && top > 0 ? top / reads[0][1] / 5 : Infinity;
    const low = Math.min(knee, ...rows.map((row) => row.intensity / 1.6));
    const high = Math.max(...rows.map((row) => row.intensity)) * 1.6;
    const rates = rows.map((row) => row.rate);
    const floor = Math.min(...rates) / 2;
    const ceiling = Math.max(top, ...rates) * 1.7;
    const lines = [];
    reads.forEach(([level, rate], i) => {
        const start = Math.max(low, floor / rate);
        const stop = Math.min(high, (top || ceiling) / rate);
        if (stop > start * 1.02) {
            lines.push({
                points: [[start, rate * start], [stop, rate * stop]], kind: "roof", turn: i,
                label: level,
            });
        }
    });
    if (top > 0) {
        const start = reads.length > 0 ? top / reads[0][1] : low;
        lines.push({
            points: [[Math.min(Math.max(low, start), high), top], [high, top]], kind: "roof",
            label: `FMA ${number(top)} GFLOP/s`,
        });
    }
    panel.append(peaksNote(top > 0 ? `FMA ${number(top)} GFLOP/s` : "", "reads", reads));
    xyChart(panel, {
        x: { label: "FLOP per byte of operands", low, high },
        y: { label: "GFLOP/s", low: floor, high: ceiling, log: true }, lines,
        points: rows.map((row) => ({
            x: row.intensity, y: row.rate, style: family(row), tip: rowText(row),
        })),
    });
}
function drawBandwidth(panel, file, rows, state) {
    const bytes = (row) => row.rate * row.median;
    const low = Math.min(...rows.map(bytes)) / 1.6;
    const high = Math.max(...rows.map(bytes)) * 1.6;
    const rates = rows.map((row) => row.rate);
    const kinds = unique(rows.map((row) => row.op));
    const flats = LEVELS.map((level) => [level, peakOf(file, "copy", "", level, state.threads) ||
        peakOf(file, "read", "", level, state.threads)]).filter(([, value]) => value !== null);
    const floor = Math.min(...rates, ...flats.map(([, value]) => value)) / 1.7;
    const ceiling = Math.max(...rates, ...flats.map(([, value]) => value)) * 1.7;
    const ticks = [];
    for (let tick = 1024; tick <= high; tick *= 16) {
        if (tick >= low) {
            ticks.push(tick);
        }
    }
    panel.append(html("h4", null, "Kernels that move bytes"),
        legend(kinds.map((op, style) => ({ style, text: op }))), peaksNote("", "copies", flats));
    xyChart(panel, {
        x: { label: "bytes of operands and result", low, high, ticks, format: byteCount },
        y: { label: "GB/s", low: floor, high: ceiling, log: true },
        lines: flats.map(([level, value], i) => ({
            points: [[low, value], [high, value]], kind: "roof", turn: i, label: level,
        })),
        points: rows.map((row) => ({
            x: bytes(row), y: row.rate, style: kinds.indexOf(row.op), tip: rowText(row),
        })),
    });
}
function drawLimits(host, state) {
    panels(host, FILES, (file) => {
        const rows = file.rows.filter((row) => timed(row, state) && row.rate > 0 &&
            (state.isa === EVERY ? row.best : row.isa === state.isa));
        const arithmetic = rows.filter((row) => row.intensity > 0);
        const moving = rows.filter((row) => !(row.intensity > 0));
        if (rows.length === 0) {
            return null;
        }
        return (panel) => {
            const left = html("div");
            const right = html("div");
            panel.classList.add("tall");
            panel.append(html("div", { class: "pair" }, left, right));
            if (arithmetic.length > 0) {
                const kinds = [...FAMILIES.map(([text]) => text), "other"]
                    .map((text, style) => ({ style, text }))
                    .filter((item) => arithmetic.some((row) => family(row) === item.style));
                left.append(html("h4", null, "Kernels that calculate"), legend(kinds));
                drawRoofline(left, file, arithmetic, state);
            }
            if (moving.length > 0) {
                drawBandwidth(right, file, moving, state);
            }
        };
    });
}
if (TIMED.length === 0) {
    nothing("roofline", "No row has a time.");
} else {
    section("roofline", [
        { key: "isa", label: "Instruction set",
          options: [[EVERY, "the best of each case"]].concat(choices(ISAS)) },
        threadsSpec(), operandsSpec], drawLimits);
}

/* ---- ladders: instruction sets, threads ------------------------------------------------------ */

/* Rows of a ladder: groups of times, each relative to that of the lowest rung. rungOf(row) is an
   index into rungs; timeOf(row) may be null. */
function ladder(rows, { rungs, rungOf, timeOf, caseOf }, state) {
    const steps = [];
    for (const members of groupBy(rows, caseOf).values()) {
        const time = new Map();
        for (const row of members) {
            if (timeOf(row) > 0) {
                time.set(rungOf(row), timeOf(row));
            }
        }
        const base = Math.min(...time.keys());
        if (time.size > 1) {
            const speed = [...time].map(([rung, ns]) => [rung, time.get(base) / ns]);
            steps.push({ row: members[0], base, speed: new Map(speed) });
        }
    }
    const groups = groupBy(steps, (step) => (state.op === EVERY ? step.row.op :
        `${step.row.shape} (${step.row.set})`) + "|" + step.base);
    return [...groups].map(([key, members]) => {
        const all = members.map((step) => step.speed);
        const marks = rungs.map((text, style) => ({
            text, style, x: geomean(all.flatMap((s) => (s.has(style) ? [s.get(style)] : []))),
        })).filter((m) => m.x !== null);
        const name = key.slice(0, key.lastIndexOf("|"));
        /* Not every case has the lowest rung: scalar code may take too long to time. */
        const from = members[0].base > 0 ? `, from ${rungs[members[0].base]}` : "";
        const label = (state.op === EVERY ? `${name} (${members.length})` : name) + from;
        const lines = [label].concat(marks.map((m) => `${m.text}: ${times(m.x)}`));
        if (members.length > 1) {
            lines.push(`geometric means of ${members.length} cases`);
        }
        return {
            label, value: times(marks[marks.length - 1].x), marks, join: true, bar: null,
            tip: lines.join("\n"),
        };
    });
}
function drawIsas(host, state) {
    panels(host, FILES, (file) => {
        const rungs = file.isas.filter((isa) => file.rows.some((row) => row.isa === isa));
        const rows = ladder(file.rows.filter((row) => timed(row, state) &&
            (state.op === EVERY || row.op === state.op)), {
            rungs, rungOf: (row) => rungs.indexOf(row.isa), timeOf: (row) => row.time,
            caseOf: (row) => row.op + " " + row.shape,
        }, state);
        if (rows.length === 0) {
            return null;
        }
        return (panel) => {
            panel.append(legend(rungs.map((text, style) => ({ style, text }))));
            rowChart(panel, rows, { label: `speed / speed of ${rungs[0]}`, least: 1, most: 4 });
        };
    });
}
if (ISAS.length < 2) {
    nothing("ladder", "Rows of one instruction set only: there is nothing to compare.");
} else {
    section("ladder", [opSpec(TIMED, "all operations (geometric means)"), threadsSpec(),
        operandsSpec], drawIsas);
}

function drawThreads(host, state) {
    panels(host, FILES, (file) => {
        const rungs = THREADS.filter((n) => file.rows.some((row) => row.threads === n));
        const timeOf = state.who === EVERY ? (row) => row.time : (row) => {
            const peer = row.peers.find((p) => p.name === state.who && p.error === null);
            return peer === undefined ? null : peer.median;
        };
        const rows = ladder(file.best.filter((row) => row.time !== null &&
            row.operands === state.operands && (state.op === EVERY || row.op === state.op)), {
            rungs: rungs.map(threadText), rungOf: (row) => rungs.indexOf(row.threads), timeOf,
            caseOf: (row) => row.op + " " + row.shape,
        }, state);
        if (rows.length === 0) {
            return null;
        }
        return (panel) => {
            panel.append(legend(rungs.map((n, style) => ({ style, text: threadText(n) }))));
            rowChart(panel, rows, {
                label: `speed / speed with ${threadText(rungs[0])}`, least: 1, doubling: true,
                most: rungs[rungs.length - 1] / rungs[0],
            });
        };
    });
}
if (THREADS.length < 2) {
    nothing("threads", "Rows of one number of threads only: there is nothing to compare.");
} else {
    section("threads", [
        opSpec(TIMED, "all operations (geometric means)"),
        { key: "who", label: "Of", options: [[EVERY, "t2"]].concat(choices(PEERS)) },
        operandsSpec], drawThreads);
}

/* ---- rate over size -------------------------------------------------------------------------- */

/* Series of at least three sizes: {name, x: label, sizeOf(row)} from shapes that differ in one
   number, or are squares. */
function findSeries() {
    const found = new Map();
    const note = (name, x, row, size) => {
        if (!found.has(name)) {
            found.set(name, { name, x, op: row.op, unit: row.unit, sizes: new Map() });
        }
        found.get(name).sizes.set(row.shape, size);
    };
    for (const row of TIMED) {
        const d = row.shape.split("x").map(Number);
        if (d.length === 3 && row.op.startsWith("sgemm")) {
            if (d[0] === d[1] && d[1] === d[2]) {
                note(`${row.op}, squares`, "m = n = k", row, d[0]);
            }
            note(`${row.op}, m rows \u00d7 (${d[1]} \u00d7 ${d[2]})`, "rows m", row, d[0]);
        } else if (d.length === 1) {
            note(row.op, "elements", row, d[0]);
        } else if (d.length === 2) {
            note(`${row.op}, by elements`, "rows \u00d7 columns", row, d[0] * d[1]);
        }
    }
    const rank = (series) => (series.name === "sgemm, squares" ? 0 :
        series.name.endsWith("squares") ? 1 : series.op === "sgemm_packed" ? 2 : 3);
    return [...found.values()].filter((series) => new Set(series.sizes.values()).size > 2)
        .sort((a, b) => rank(a) - rank(b));
}
const SERIES = findSeries();

/* A curve of (size, rate); rows of one size and different shapes give one point, the fastest. */
function curve(rows, series, rateOf) {
    const points = new Map();
    for (const row of rows) {
        const rate = rateOf(row);
        const size = series.sizes.get(row.shape);
        if (rate > 0 && (!points.has(size) || points.get(size)[1] < rate)) {
            points.set(size, [size, rate, rowText(row)]);
        }
    }
    return [...points.values()].sort((a, b) => a[0] - b[0]);
}
function curvesOf(rows, series, by) {
    const best = rows.filter((row) => row.best);
    if (by === "isas") {
        return ISAS.map((isa, style) => ({
            style, text: "t2 " + isa, kind: "curve own",
            points: curve(rows.filter((row) => row.isa === isa), series, (row) => row.rate),
        }));
    }
    if (by === "machines") {
        return FILES.map((file, style) => ({
            style, text: file.label, kind: "curve own",
            points: curve(best.filter((row) => row.file === file), series, (row) => row.rate),
        }));
    }
    const own = {
        style: 0, text: "t2", kind: "curve own",
        points: curve(best, series, (row) => row.rate),
    };
    return [own].concat(PEERS.map((name, i) => ({
        style: i + 1, text: name, kind: "curve",
        points: curve(best, series, (row) => {
            const peer = row.peers.find((p) => p.name === name && p.error === null);
            return peer === undefined ? null : row.rate * row.median / peer.median;
        }),
    })));
}
/* What draws the curves of these rows into a panel, or null. */
function curveChart(rows, series, by, peak) {
    const curves = curvesOf(rows, series, by).filter((c) => c.points.length > 0);
    const points = curves.flatMap((c) => c.points);
    if (points.length === 0) {
        return null;
    }
    const sizes = points.map((p) => p[0]);
    const lines = curves.slice();
    const low = Math.min(...sizes) / 1.2;
    const high = Math.max(...sizes) * 1.2;
    if (peak !== null) {
        lines.push({
            points: [[low, peak], [high, peak]], kind: "roof faint",
            label: `FMA peak ${number(peak)} GFLOP/s`,
        });
    }
    const y = {
        label: series.unit, low: 0, high: Math.max(peak || 0, ...points.map((p) => p[1])) * 1.08,
    };
    return (panel) => {
        panel.append(legend(curves.map((c) => ({ style: c.style, text: c.text, line: true }))));
        xyChart(panel, { x: { label: series.x, low, high, ticks: unique(sizes) }, y, lines });
    };
}
function drawCurves(host, state) {
    const series = SERIES[state.series];
    const rows = TIMED.filter((row) => row.op === series.op && series.sizes.has(row.shape) &&
        timed(row, state));
    if (state.by === "machines") {
        const everything = { label: "All machines, best instruction set" };
        panels(host, [everything], () => curveChart(rows, series, state.by, null));
        return;
    }
    const peakFor = (file) => (series.unit === "GFLOP/s" ?
        peakOf(file, "fma", file.active, "", state.threads) : null);
    panels(host, FILES, (file) => curveChart(rows.filter((row) => row.file === file), series,
        state.by, peakFor(file)));
}
if (SERIES.length === 0) {
    nothing("curves", "No operation was timed at three sizes or more.");
} else {
    section("curves", [
        { key: "series", label: "Show", options: SERIES.map((series, i) => [i, series.name]) },
        { key: "by", label: "One line per",
          options: [].concat(PEERS.length > 0 ? [["peers", "peer"]] : [], [["isas",
              "instruction set"]], FILES.length > 1 ? [["machines", "machine"]] : []) },
        threadsSpec(), operandsSpec], drawCurves);
}
