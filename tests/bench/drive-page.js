/* Works the page like a reader: every choice of every selector, every heading of the table, every
   button, hovering over every chart. What it counts stands in <output id="driven"> at the end. */
(() => {
    const seen = { choices: 0, sorts: 0, tips: 0, empty: 0 };
    const bad = /NaN|undefined|Infinity|\[object/;
    const check = (what) => {
        const main = document.querySelector("main");
        if (bad.test(main.textContent) || bad.test(main.innerHTML)) {
            throw new Error("no value after " + what);
        }
    };
    for (const choice of document.querySelectorAll("select")) {
        const first = choice.selectedIndex;
        for (let i = 0; i < choice.options.length; i++) {
            choice.selectedIndex = i;
            choice.dispatchEvent(new Event("change"));
            check(`${choice.closest("section").id}, ${choice.name}, ${choice.options[i].text}`);
            seen.choices++;
        }
        choice.selectedIndex = first;
        choice.dispatchEvent(new Event("change"));
    }
    const body = document.querySelector("#rows tbody");
    const order = () => [...body.rows].map((row) => row.textContent).join("\n");
    for (const button of document.querySelectorAll("#rows thead button")) {
        button.click();
        const once = order();
        button.click();
        check("sorting by " + button.textContent);
        if (order() !== once) {
            seen.sorts++;
        }
    }
    const search = document.querySelector("#rows input");
    const all = body.rows.length;
    search.value = "no row has these words";
    search.dispatchEvent(new Event("input"));
    seen.empty = body.rows.length === 0 ? 1 : 0;
    search.value = "SGEMM";
    search.dispatchEvent(new Event("input"));
    const found = body.rows.length;
    if (![...body.rows].every((row) => row.textContent.includes("sgemm"))) {
        throw new Error("a row that the filter should hide");
    }
    search.value = "";
    search.dispatchEvent(new Event("input"));
    if (body.rows.length !== all || found === 0) {
        throw new Error("the filter lost rows");
    }
    for (const button of document.querySelectorAll("button.more")) {
        button.click();
    }
    check("asking for more");
    const tip = document.getElementById("tip");
    for (const chart of document.querySelectorAll("svg.chart")) {
        const marks = chart.querySelectorAll(".mark");
        const box = marks[marks.length - 1].getBoundingClientRect();
        const at = { clientX: box.x + box.width / 2, clientY: box.y + box.height / 2 };
        const target = marks[marks.length - 1].closest(".row") || chart;
        target.dispatchEvent(new PointerEvent("pointermove", Object.assign({ bubbles: true }, at)));
        if (!tip.hidden && tip.textContent.length > 10 && !bad.test(tip.textContent)) {
            seen.tips++;
        }
        target.dispatchEvent(new PointerEvent("pointerleave"));
    }
    if (!tip.hidden) {
        throw new Error("a tooltip stays");
    }
    const theme = document.getElementById("theme");
    const scheme = () => getComputedStyle(document.body).backgroundColor;
    theme.click();
    const light = scheme();
    theme.click();
    const dark = scheme();
    theme.click();
    if (light === dark || document.title === "injected") {
        throw new Error("the theme does not change, or a text was run");
    }
    const output = document.createElement("output");
    output.id = "driven";
    output.textContent = `driven: ${seen.choices} choices, ${seen.sorts} sorts, ` +
        `${seen.tips} tips, ` +
        `${document.querySelectorAll("svg.chart").length} charts, ${seen.empty} empty, ` +
        `${body.rows.length} rows`;
    document.body.append(output);
})();
