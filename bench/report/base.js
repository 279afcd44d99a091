/* Data, formats, elements, tooltips, controls. Everything that comes from a file reaches the page
   as text of a text node or as a number, never as markup. */

const DATA = JSON.parse(document.getElementById("data").textContent);
const SVG = "http://www.w3.org/2000/svg";

function named(fields, values) {
    const object = {};
    fields.forEach((field, i) => { object[field] = i < values.length ? values[i] : null; });
    return object;
}

/* Files with their rows as objects; `time` is the median in ns, null where the row failed. */
const FILES = DATA.files.map((file, index) => {
    const result = Object.assign({}, file, { index });
    result.rows = file.rows.map((values) => {
        const row = named(DATA.fields, values);
        row.file = result;
        row.peers = (row.peers || []).map((peer) => named(DATA.peerFields, peer));
        row.time = row.error === null && row.median > 0 ? row.median : null;
        return row;
    });
    result.best = result.rows.filter((row) => row.best);
    return result;
});

function unique(values) {
    return [...new Set(values)];
}
const ROWS = FILES.flatMap((file) => file.rows);
const TIMED = ROWS.filter((row) => row.time !== null);
const OPS = unique(ROWS.map((row) => row.op));
const THREADS = unique(TIMED.map((row) => row.threads)).sort((a, b) => a - b);
const OPERANDS = ["hot", "cold-weights", "cold-all"].filter(
    (name) => TIMED.some((row) => row.operands === name));
const PEERS = unique(TIMED.flatMap((row) => row.peers.map((peer) => peer.name))).sort();
/* Instruction sets from low to high, over all files. */
const ISAS = unique(FILES.flatMap((file) => file.isas).concat(TIMED.map((row) => row.isa)))
    .filter((isa) => TIMED.some((row) => row.isa === isa));

function groupBy(items, key) {
    const groups = new Map();
    for (const item of items) {
        const k = key(item);
        if (!groups.has(k)) {
            groups.set(k, []);
        }
        groups.get(k).push(item);
    }
    return groups;
}
function geomean(values) {
    const usable = values.filter((value) => value > 0);
    if (usable.length === 0) {
        return null;
    }
    return Math.exp(usable.reduce((sum, value) => sum + Math.log(value), 0) / usable.length);
}

/* ---- formats --------------------------------------------------------------------------------- */

/* Three significant digits. */
function number(x) {
    if (!Number.isFinite(x)) {
        return "-";
    }
    const size = Math.abs(x);
    const digits = size >= 99.95 || size === 0 ? 0 : size >= 9.995 ? 1 : size >= 0.9995 ? 2 : 3;
    return x.toFixed(digits);
}
function times(x) {
    if (!Number.isFinite(x) || x <= 0) {
        return "-";
    }
    return (x < 0.0995 ? x.toPrecision(2) : x < 9.995 ? x.toFixed(2) : number(x)) + "\u00d7";
}
function percent(x) {
    return Number.isFinite(x) ? (100 * x).toFixed(0) + "\u00a0%" : "-";
}
function scaled(x, units, factor) {
    let u = 0;
    while (x >= factor && u < units.length - 1) {
        x /= factor;
        u++;
    }
    return (Number.isInteger(x) ? String(x) : number(x)) + "\u00a0" + units[u];
}
function duration(ns) {
    return scaled(ns, ["ns", "\u00b5s", "ms", "s"], 1000);
}
function byteCount(bytes) {
    return scaled(bytes, ["B", "KiB", "MiB", "GiB"], 1024);
}
function plural(n, word) {
    return n + " " + word + (n === 1 ? "" : "s");
}
/* A share far above 100 % says that the peak was measured too low. */
function limitShare(x) {
    return percent(x) + (x > 1.1 ? "?" : "");
}
/* What a tooltip says of a row. */
function rowText(row) {
    const lines = [row.name];
    if (FILES.length > 1) {
        lines.push(row.file.label);
    }
    lines.push(`${number(row.rate)} ${row.unit}, ${duration(row.median)}` +
        (row.noisy ? " (noisy)" : ""));
    if (row.limit !== null) {
        lines.push(`${limitShare(row.share)} of its limit, ${row.limit}`);
    }
    for (const peer of row.peers) {
        lines.push(peer.error !== null ? `${peer.name}: ${peer.error}` :
            `${times(peer.ratio)} ${peer.name} (${times(peer.low)} to ${times(peer.high)})` +
            (peer.noisy ? " (noisy)" : ""));
    }
    return lines.join("\n");
}

/* ---- elements -------------------------------------------------------------------------------- */

function add(element, attributes, children) {
    for (const [name, value] of Object.entries(attributes || {})) {
        if (value !== null && value !== false) {
            element.setAttribute(name, value === true ? "" : String(value));
        }
    }
    for (const child of children.flat()) {
        if (child !== null) {
            element.append(child);
        }
    }
    return element;
}
function html(tag, attributes, ...children) {
    return add(document.createElement(tag), attributes, children);
}
function svg(tag, attributes, ...children) {
    return add(document.createElementNS(SVG, tag), attributes, children);
}

/* Shapes of about equal weight around (x, y), r being about half their width. */
const SHAPES = [
    (x, y, r) => `M${x - r},${y}a${r},${r} 0 1 0 ${2 * r},0a${r},${r} 0 1 0 ${-2 * r},0Z`,
    (x, y, r) => `M${x - 0.9 * r},${y - 0.9 * r}h${1.8 * r}v${1.8 * r}h${-1.8 * r}Z`,
    (x, y, r) => `M${x},${y - 1.3 * r}L${x + 1.2 * r},${y + 0.9 * r}H${x - 1.2 * r}Z`,
    (x, y, r) => `M${x},${y - 1.35 * r}L${x + 1.35 * r},${y}L${x},${y + 1.35 * r}` +
        `L${x - 1.35 * r},${y}Z`,
    (x, y, r) => `M${x},${y + 1.3 * r}L${x + 1.2 * r},${y - 0.9 * r}H${x - 1.2 * r}Z`,
    (x, y, r) => `M${x - 1.2 * r},${y - 0.45 * r}h${0.75 * r}v${-0.75 * r}h${0.9 * r}` +
        `v${0.75 * r}h${0.75 * r}v${0.9 * r}h${-0.75 * r}v${0.75 * r}h${-0.9 * r}` +
        `v${-0.75 * r}h${-0.75 * r}Z`,
    (x, y, r) => `M${x - 1.3 * r},${y - 0.6 * r}h${2.6 * r}v${1.2 * r}h${-2.6 * r}Z`,
    (x, y, r) => `M${x - 0.6 * r},${y - 1.3 * r}h${1.2 * r}v${2.6 * r}h${-1.2 * r}Z`,
];
/* A style is a number: colour and shape; open marks come after the eighth. */
function mark(x, y, style, r) {
    const open = Math.floor(style / 8) % 2 === 1;
    return svg("path", {
        d: SHAPES[style % 8](x, y, r || 4.5),
        class: `mark k${style % 8}${open ? " open" : ""}`,
    });
}
/* items: {style, text, line: whether a line goes through the mark} */
function legend(items) {
    return html("div", { class: "legend" }, items.map((item) => {
        const icon = svg("svg", { class: "icon", viewBox: "0 0 22 12", "aria-hidden": "true" });
        if (item.bar) {
            icon.append(svg("rect", { x: 2, y: 2, width: 18, height: 8, class: item.bar }));
        } else {
            if (item.line) {
                icon.append(svg("path", { d: "M0,6H22", class: `curve k${item.style % 8}` }));
            }
            icon.append(mark(11, 6, item.style, 4));
        }
        return html("span", null, icon, item.text);
    }));
}

/* ---- tooltips -------------------------------------------------------------------------------- */

const tip = document.getElementById("tip");
function showTip(text, event) {
    tip.textContent = text;
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    const x = Math.min(event.clientX + 14, window.innerWidth - box.width - 8);
    const below = event.clientY + 16;
    const y = below + box.height < window.innerHeight ? below : event.clientY - box.height - 10;
    tip.style.left = Math.max(4, x) + "px";
    tip.style.top = Math.max(4, y) + "px";
}
function hideTip() {
    tip.hidden = true;
}
function withTip(element, text) {
    const show = (event) => showTip(text, event);
    element.addEventListener("pointermove", show);
    element.addEventListener("pointerdown", show);
    element.addEventListener("pointerleave", hideTip);
    return element;
}
document.addEventListener("scroll", hideTip, { passive: true });
document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
        hideTip();
    }
});

/* ---- sections -------------------------------------------------------------------------------- */

/* A select for each spec {key, label, options: [[value, text]], value} that leaves a choice; state
   holds what is chosen. */
function selectors(specs, state, changed) {
    const box = html("div", { class: "controls" });
    for (const spec of specs) {
        state[spec.key] = spec.value !== undefined ? spec.value : (spec.options[0] || [null])[0];
        if (spec.options.length < 2) {
            continue;
        }
        const select = html("select", { name: spec.key }, spec.options.map(([value, text]) =>
            html("option", { value, selected: value === state[spec.key] }, text)));
        select.addEventListener("change", () => {
            state[spec.key] = spec.options[select.selectedIndex][0];
            changed();
        });
        box.append(html("label", null, spec.label, select));
    }
    return box.childElementCount > 0 ? box : null;
}
const DRAWN = [];
/* A section whose charts are drawn anew when a choice or the width changes. draw(host, state) */
function section(id, specs, draw) {
    const host = html("div", { class: "host" });
    const state = {};
    const redraw = () => {
        host.replaceChildren();
        draw(host, state);
    };
    const box = selectors(specs, state, redraw);
    document.getElementById(id).append(...(box === null ? [host] : [box, host]));
    redraw();
    DRAWN.push(redraw);
}
/* One panel per file that has something to show: choose(file) gives what draws into the panel, or
   null. All panels stand before the first is drawn, since their number decides their width. */
function panels(host, files, choose) {
    const shown = files.map((file) => [file, choose(file)]).filter(([, draw]) => draw !== null);
    if (shown.length === 0) {
        host.append(html("p", { class: "soft" }, "No rows for this choice."));
        return;
    }
    const boxes = shown.map(([file]) =>
        html("div", { class: "panel" }, html("h3", null, file.label)));
    host.append(html("div", { class: "panels" + (shown.length === 1 ? " single" : "") }, boxes));
    shown.forEach(([, draw], i) => draw(boxes[i]));
}
function nothing(id, text) {
    document.getElementById(id).append(html("p", { class: "soft" }, text));
}
function choices(values, text) {
    return values.map((value) => [value, text ? text(value) : String(value)]);
}
const threadText = (n) => plural(n, "thread");

/* Charts fit the width at hand, which turning a phone or resizing a window changes. */
(() => {
    const main = document.querySelector("main");
    let width = main.clientWidth;
    let asked = false;
    const redraw = () => {
        width = main.clientWidth;
        DRAWN.forEach((draw) => draw());
    };
    new ResizeObserver(() => {
        if (main.clientWidth !== width && !asked) {
            asked = true;
            requestAnimationFrame(() => {
                asked = false;
                redraw();
            });
        }
    }).observe(main);
    /* On paper too: the class gives the page the width of a sheet while it is printed. */
    const facts = document.getElementById("facts");
    let open = false;
    window.addEventListener("beforeprint", () => {
        document.documentElement.classList.add("paper");
        open = facts.open;
        facts.open = true;
        redraw();
    });
    window.addEventListener("afterprint", () => {
        document.documentElement.classList.remove("paper");
        facts.open = open;
        redraw();
    });
})();

/* ---- light and dark -------------------------------------------------------------------------- */

(() => {
    const button = document.getElementById("theme");
    const themes = ["auto", "light", "dark"];
    let theme = "auto";
    try {
        theme = localStorage.getItem("t2bench-theme") || "auto";
    } catch (error) {
        /* Without storage the choice lasts as long as the page. */
    }
    const apply = () => {
        if (theme === "auto") {
            delete document.documentElement.dataset.theme;
        } else {
            document.documentElement.dataset.theme = theme;
        }
        button.textContent = "Theme: " + theme;
    };
    theme = themes.includes(theme) ? theme : "auto";
    button.hidden = false;
    button.addEventListener("click", () => {
        theme = themes[(themes.indexOf(theme) + 1) % themes.length];
        try {
            localStorage.setItem("t2bench-theme", theme);
        } catch (error) {
            /* As above. */
        }
        apply();
    });
    apply();
})();
