/* All rows: to sort by any column, to filter by text and by choice. */

(() => {
    const LIMIT = 300;
    const host = document.getElementById("rows");
    const byText = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
    /* Shapes sort by their numbers. */
    const padded = (shape) => shape.replace(/\d+/g, (digits) => digits.padStart(10, "0"));
    const columns = [
        { name: "operation", key: (row) => row.op },
        { name: "shape", key: (row) => padded(row.shape), cell: (row) => row.shape },
        { name: "ISA", key: (row) => ISAS.indexOf(row.isa), cell: (row) => row.isa },
        { name: "thr.", key: (row) => row.threads, num: true },
        { name: "machine", key: (row) => row.file.label, only: FILES.length > 1 },
        { name: "operands", key: (row) => row.operands, only: OPERANDS.length > 1 },
        { name: "time", key: (row) => row.time, num: true, cell: timeCell },
        { name: "rate", key: (row) => row.rate, num: true,
          cell: (row) => number(row.rate) + "\u00a0" + row.unit },
        { name: "best peer", key: (row) => row.ratio, num: true, cell: bestCell },
        { name: "limit", key: (row) => row.share, cell: limitCell },
        { name: "other peers", key: (row) => row.peers.length, cell: otherCell, screen: true },
        { name: "set", key: (row) => row.set || "", screen: true },
        { name: "fingerprint", key: (row) => row.fp || "", mono: true, screen: true },
    ].filter((column) => column.only !== false);

    /* What a sheet of paper has no room for is only on the screen. */
    function classes(column) {
        return ["num", "mono", "screen"].filter((name) => column[name]).join(" ") || null;
    }
    function timeCell(row) {
        const half = (row.high - row.low) / 2;
        const share = half > 0 ? ` \u00b1${(100 * half / row.median).toFixed(1)}\u00a0%` : "";
        const noisy = row.noisy ?
            html("span", { class: "noisy", title: "noisy: rounds scatter" }, " ~") : null;
        return [duration(row.median), html("span", { class: "soft" }, share), noisy];
    }
    function limitCell(row) {
        if (row.limit === null || !(row.share > 0)) {
            return "";
        }
        const width = Math.min(100, 100 * row.share).toFixed(1);
        return html("span", { class: "share-cell" },
            html("span", { class: "bar" }, html("span", { style: `width:${width}%` })),
            limitShare(row.share), html("span", { class: "soft" }, row.limit));
    }
    function bestCell(row) {
        if (!(row.ratio > 0)) {
            return "";
        }
        /* Verdicts as in report.h: 1 behind, 2 level, 3 ahead. */
        const verdict = [null, "lost", null, "won"][row.verdict];
        return [html("span", { class: verdict }, times(row.ratio)), " " + row.bestPeer];
    }
    function otherCell(row) {
        return row.peers.filter((peer) => peer.name !== row.bestPeer || peer.error !== null)
            .map((peer) => peer.name + "\u00a0" +
                (peer.error !== null ? "failed" : times(peer.ratio) + (peer.noisy ? "~" : "")))
            .join(", ");
    }

    const state = { text: "", sort: null, descending: false, limit: LIMIT };
    const count = html("span", { class: "soft" });
    const body = html("tbody");
    const more = html("button", { type: "button", class: "more" });
    const heads = columns.map((column) => {
        const button = html("button", { type: "button" }, column.name);
        const head = html("th", { class: classes(column), scope: "col" }, button);
        button.addEventListener("click", () => {
            /* Numbers start with the largest, text with the first. */
            state.descending = state.sort === column ? !state.descending : Boolean(column.num);
            state.sort = column;
            for (const other of heads) {
                other.removeAttribute("aria-sort");
            }
            head.setAttribute("aria-sort", state.descending ? "descending" : "ascending");
            draw();
        });
        return head;
    });

    function element(row) {
        const cells = [];
        for (const column of columns) {
            /* A failed row has no numbers: its reason stands in their place. */
            if (row.time === null && column.name === "time") {
                cells.push(html("td", { colspan: columns.length - cells.length },
                    "failed: " + (row.error || "no time")));
                break;
            }
            const content = column.cell ? column.cell(row) : String(column.key(row));
            cells.push(html("td", { class: classes(column) }, ...[content].flat()));
        }
        const line = html("tr", { class: row.time === null ? "failed" : null }, cells);
        return row.time === null ? line : withTip(line, rowText(row));
    }
    /* The same row of several machines stands together. */
    const together = [...groupBy(ROWS, (row) => row.name).values()].flat();
    function chosen() {
        const words = state.text.toLowerCase().split(/\s+/).filter(Boolean);
        const rows = together.filter((row) =>
            (state.machine === EVERY || row.file.index === state.machine) &&
            (state.op === EVERY || row.op === state.op) &&
            (state.isa === EVERY || (state.isa === "best" ? row.best : row.isa === state.isa)) &&
            (state.threads === EVERY || row.threads === state.threads) &&
            (state.operands === EVERY || row.operands === state.operands) &&
            (state.only === EVERY || ONLY[state.only][1](row)) &&
            words.every((word) => searchText(row).includes(word)));
        if (state.sort !== null) {
            const sign = state.descending ? -1 : 1;
            const key = state.sort.key;
            /* Rows without the value come last either way. */
            rows.sort((a, b) => {
                const x = key(a);
                const y = key(b);
                if (x === null || y === null) {
                    return (x === null) - (y === null);
                }
                return sign * byText(x, y);
            });
        }
        return rows;
    }
    function searchText(row) {
        row.search = row.search || [row.name, row.file.label, row.set, row.fp, row.limit,
            row.bestPeer, row.error].join(" ").toLowerCase();
        return row.search;
    }
    const ONLY = {
        behind: ["behind the best peer", (row) => row.verdict === 1],
        ahead: ["ahead of the best peer", (row) => row.verdict === 3],
        noisy: ["noisy", (row) => row.noisy === true],
        failed: ["failed, t2 or a peer", (row) => row.time === null ||
            row.peers.some((peer) => peer.error !== null)],
    };
    function draw() {
        const rows = chosen();
        const shown = rows.slice(0, state.limit);
        body.replaceChildren(...shown.map(element));
        count.textContent = shown.length < rows.length ?
            `${shown.length} of ${plural(rows.length, "row")} shown` : plural(rows.length, "row");
        more.hidden = shown.length === rows.length;
        more.textContent = `Show all ${rows.length} rows`;
    }
    function changed() {
        state.limit = LIMIT;
        draw();
    }

    const search = html("input", {
        type: "search", placeholder: "words of a row, such as sgemm cold", size: 30,
        "aria-label": "Filter by text",
    });
    search.addEventListener("input", () => {
        state.text = search.value;
        changed();
    });
    more.addEventListener("click", () => {
        state.limit = Infinity;
        draw();
    });
    const any = (text, options) => [[EVERY, text]].concat(options);
    const best = TIMED.some((row) => !row.best) ? [["best", "best of each case"]] : [];
    const box = selectors([
        { key: "machine", label: "Machine", options: FILES.length < 2 ? [[EVERY, ""]] :
            any("all", FILES.map((file) => [file.index, file.label])) },
        { key: "op", label: "Operation", options: any("all", choices(OPS)) },
        { key: "isa", label: "ISA",
          options: ISAS.length < 2 ? [[EVERY, ""]] : any("all", best.concat(choices(ISAS))) },
        { key: "threads", label: "Threads",
          options: THREADS.length < 2 ? [[EVERY, ""]] : any("all", choices(THREADS)) },
        { key: "operands", label: "Operands",
          options: OPERANDS.length < 2 ? [[EVERY, ""]] : any("all", choices(OPERANDS)) },
        { key: "only", label: "Only",
          options: any("all", Object.keys(ONLY).map((key) => [key, ONLY[key][0]])) },
    ], state, changed) || html("div", { class: "controls" });
    box.prepend(search);
    box.append(count);
    host.append(box, html("div", { class: "scroll" }, html("table", null,
        html("thead", null, html("tr", null, heads)), body)), more);
    draw();
})();
