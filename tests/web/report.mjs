// report.mjs PAGES CHROMIUM OUT: pages and charts of `eplb report` from files, with scripts switched off, as a person looks at
// them: wide and narrow, light and dark, by pointer and by keyboard, and printed. What fails is said, and ends it.
import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { launch, step } from "./chromium.mjs";

const [folder, program, out] = process.argv.slice(2);
const NO_SCRIPTS = ["Emulation.setScriptExecutionDisabled", { value: true }];
const LOOKS = [[1280, "light"], [1280, "dark"], [390, "light"], [390, "dark"]];
/** Width and height of a page of A4 without its margins, as Chromium prints it. */
const PAPER = [718, 1046];
let browser;

const save = async (tab, name, most) => writeFile(join(out, `report-${name}.png`), await tab.shot(most));

/** Opens a page or chart; how long that took. */
async function open(name) {
    const start = Date.now();
    const tab = await browser.open(`file://${resolve(folder, name)}`, [NO_SCRIPTS]);
    const took = Date.now() - start;
    console.log(`${name}: opened in ${took} ms`);
    assert.ok(took < 10000, `${name} takes ${took} ms`);
    return tab;
}

/** Nothing was loaded but the file, and the browser has nothing to complain of. */
async function close(tab) {
    assert.equal(tab.requests.length, 1, tab.requests.join("\n"));
    assert.ok(tab.requests[0].startsWith("file://"));
    assert.deepEqual([tab.complaints, tab.troubles], [[], []]);
    await tab.close();
}

/** Functions that the expressions below use. */
const HELP = `const luminance = (colour) => {
        const [r, g, b] = colour.match(/[\\d.]+/g).map((part) => part / 255);
        const linear = (part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
        return 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
    };
    const contrast = (a, b) => {
        const [dark, light] = [luminance(a), luminance(b)].sort((a, b) => a - b);
        return (light + 0.05) / (dark + 0.05);
    };
    const style = (selector) => getComputedStyle(document.querySelector(selector));
    const all = (selector, inside = document) => [...inside.querySelectorAll(selector)];
    const box = (element) => { const { x, y, width, height, right, bottom } = element.getBoundingClientRect(); return { x, y, width, height, right, bottom }; };`;
const ask = (tab, expression) => tab.run(`(() => { ${HELP} return ${expression}; })()`);

/** The page at one width and scheme: nothing sticks out, text is read, every chart has its name and its numbers. */
async function looks(tab, name) {
    const grounds = new Set();
    const figures = await ask(tab, `all("figure").length`);
    assert.ok(figures > 0);
    for (const [width, scheme] of LOOKS) {
        await tab.look(width, scheme);
        const what = `${name} at ${width}, ${scheme}`;
        assert.ok((await ask(tab, "document.documentElement.scrollWidth")) <= width, `${what} is wider`);
        const ratios = await ask(tab, `["body", "p", "figcaption", "figcaption span", "summary", "h2"]
            .filter((selector) => document.querySelector(selector))
            .flatMap((selector) => [style("body"), style("figure")].map((ground) => contrast(style(selector).color, ground.backgroundColor)))`);
        ratios.push(...(await ask(tab, `all("svg text").slice(0, 50)
            .map((text) => contrast(getComputedStyle(text).fill, style("figure").backgroundColor))`)));
        assert.ok(ratios.length > 10 && Math.min(...ratios) >= 4.5, `${what}: contrasts ${ratios}`);
        // Charts keep off the edges of their cards and are large enough to be seen.
        const sizes = await ask(tab, `all("figure .plot > svg").map((svg) => box(svg)).map(({ width, height }) => [width, height])`);
        assert.ok(sizes.length === figures && sizes.every(([wide, high]) => wide > 250 && high > 100), `${what}: ${sizes}`);
        const cut = await ask(tab, `all("figure .plot > svg").flatMap((svg) => all("text", svg)
            .filter((text) => box(text).x < box(svg).x - 1 || box(text).right > box(svg).right + 1).map((text) => text.textContent))`);
        assert.deepEqual(cut, [], `${what}: text beyond its chart`);
        const bare = await ask(tab, `all("figure").filter((figure) => !figure.querySelector("svg[role=img]")?.getAttribute("aria-label")
            || !figure.querySelector("table tbody td") || !figure.querySelector(".keys input")).length`);
        assert.equal(bare, 0, `${what}: charts without a name, a table or keys`);
        const colours = await ask(tab, `[style("body").backgroundColor, style("body").color, style("figure").backgroundColor]`);
        grounds.add(`${scheme} ${colours}`);
        await save(tab, `${name}-${width}-${scheme}`, 6000);
    }
    const [light, dark] = [...grounds].map((text) => text.split(" ").slice(1).join(" "));
    assert.equal(grounds.size, 2, "the width changes colours");
    assert.notEqual(light, dark, "light and dark are the same");
}

/** Pointing at any cell of the heat map of the plan tells its row, its GPU and its number, and nothing sticks out. */
async function pointing(tab, layers, gpus) {
    for (const [width, scheme] of [[390, "dark"], [1280, "light"]]) {
        await tab.look(width, scheme);
        const values = await ask(tab, `all(".gpus").at(-1) && all("tbody", all(".gpus").at(-1))
            .map((row) => all("td", row).map((cell) => +cell.textContent))`);
        assert.ok(values.length === layers && values.every((row) => row.length === gpus));
        const even = values.flat().findIndex((value) => value > 0.97 && value < 1.03);
        assert.ok(even >= 0, "no GPU is near the mean");
        const places = [[0, 0], [layers - 1, gpus - 1], [Math.floor(even / gpus), even % gpus]];
        for (const [row, column] of places) {
            const cell = `all("td", all("tbody", all(".gpus").at(-1))[${row}])[${column}]`;
            await ask(tab, `${cell}.scrollIntoView({ block: "center" })`);
            const { x, y, width: wide, height: high } = await ask(tab, `box(${cell})`);
            await tab.point(x + wide / 2, y + high / 2);
            const seen = await ask(tab, `(() => {
                const tip = ${cell}.querySelector("b");
                const { fontSize, color, backgroundColor, position } = getComputedStyle(tip);
                const before = getComputedStyle(tip, "::before").content;
                return { text: tip.textContent, size: parseFloat(fontSize), contrast: contrast(color, backgroundColor), position, before, box: box(tip) };
            })()`);
            assert.ok(seen.size > 9 && seen.contrast > 4.5 && seen.position === "absolute", JSON.stringify(seen));
            assert.equal(seen.text, values[row][column].toFixed(2));
            assert.match(seen.before, new RegExp(`^"L${row} (" ")?G" counter\\(g\\)`));
            assert.ok(seen.box.x >= 0 && seen.box.right <= width && seen.box.height > 12, `${JSON.stringify(seen.box)} at ${width}`);
            assert.ok((await ask(tab, "document.documentElement.scrollWidth")) <= width);
        }
        await save(tab, `pointing-${width}`, 6000);
    }
    await tab.point(1, 1);
    const bars = await ask(tab, `all(".bar > path, circle").filter((mark) => !/\\d/.test(mark.querySelector("title")?.textContent)).length`);
    assert.equal(bars, 0, "bars and points without a title");
}

/** The text at the foot of the window, if there is any. */
const FOOT = `all(".keys input:focus + span, .grid tbody:focus-within tr + tr").filter((foot) => getComputedStyle(foot).position === "fixed"
    && Math.abs(box(foot).bottom - innerHeight) < 2 && box(foot).height > 20).map((foot) => foot.innerText).join("")`;

/** Tab goes from chart to chart, arrows through its rows or columns; each tells its numbers at the foot of the window. */
async function keys(tab, charts, gpus) {
    await tab.look(390, "light");
    const told = new Map();
    for (let n = 0; n < 6 * charts && told.size < charts; n++) {
        await tab.press("Tab");
        const group = await ask(tab, `document.activeElement.closest(".keys")?.getAttribute("aria-label")`);
        if (!group) continue;
        const before = await ask(tab, FOOT);
        await tab.press("ArrowDown");
        const after = await ask(tab, FOOT);
        for (const text of [before, after]) assert.match(text, /\d/, `${group}: ${text}`);
        // The chart itself is in sight, above the foot.
        const seen = await ask(tab, `box(document.activeElement)`);
        assert.ok(seen.y >= 0 && seen.y < 800, `${group}: ${JSON.stringify(seen)}`);
        told.set(group, [before, after]);
        if (group === "Numbers: Plan") {
            assert.notEqual(before, after);
            assert.equal(after.match(/\d\.\d\d/g).length, gpus, after);
            await save(tab, "keys-390", 1e5);
        }
    }
    assert.equal(told.size, charts, [...told.keys()].join("\n"));
    await tab.run("document.activeElement.blur()");
}

/** On paper: no dark ground whatever the screen has, no chart across two pages, nothing wider than the page, tables in full. */
async function paper(tab, name) {
    await tab.look(PAPER[0], "dark", "print");
    await ask(tab, `all("details").slice(0, 2).forEach((table) => { table.open = true; })`);
    const ratios = await ask(tab, `["body", "figure", ".tiles div", "table"].filter((selector) => document.querySelector(selector))
        .map((selector) => style(selector).backgroundColor).filter((colour) => !/, 0\\)$/.test(colour)).map((colour) => luminance(colour))`);
    assert.ok(ratios.length > 0 && Math.min(...ratios) > 0.9, `dark grounds: ${ratios}`);
    assert.ok((await ask(tab, "document.documentElement.scrollWidth")) <= PAPER[0]);
    const charts = await ask(tab, `all("figure .plot").map((plot) => [box(plot).height, getComputedStyle(plot).breakInside])`);
    assert.ok(charts.every(([height, inside]) => height < PAPER[1] && inside === "avoid"), JSON.stringify(charts));
    const tables = await ask(tab, `all("details[open] .table").map((table) => [table.scrollHeight - table.clientHeight, table.scrollWidth - table.clientWidth])`);
    assert.ok(tables.length > 0 && tables.flat().every((hidden) => hidden <= 1), `${tables} hidden`);
    assert.equal(await ask(tab, `all("details:not([open]) summary").filter((title) => box(title).height > 0).length`), 0);
    await save(tab, `${name}-print`, 6000);
    const { data } = await tab.to("Page.printToPDF", { printBackground: true, paperWidth: 8.27, paperHeight: 11.69 });
    const bytes = Buffer.from(data, "base64");
    await writeFile(join(out, `report-${name}.pdf`), bytes);
    const pages = bytes.toString("latin1").match(/\/Type \/Page\b/g).length;
    assert.ok(pages > 1 && pages < 20, `${pages} pages`);
    console.log(`${name}: ${pages} pages of A4`);
}

try {
    browser = await launch(program, []);
    let tab = await open("plan.html");
    await step("a plan, on screens", () => looks(tab, "plan"));
    await step("a plan, by pointer", () => pointing(tab, 6, 16));
    await step("a plan, on paper", () => paper(tab, "plan"));
    await close(tab);
    tab = await open("moves.html");
    await step("moves, on screens", () => looks(tab, "moves"));
    await step("moves, by pointer", () => pointing(tab, 94, 32));
    await step("moves, by keyboard", () => keys(tab, 14, 32));
    await step("moves, on paper", () => paper(tab, "moves"));
    await close(tab);
    tab = await open("replay.html");
    await step("a replay and advice, on screens", () => looks(tab, "replay"));
    await step("a replay and advice, on paper", () => paper(tab, "replay"));
    await close(tab);
    for (const chart of ["load-plan.svg", "balancedness.svg"]) {
        tab = await open(join("charts", chart));
        const grounds = [];
        for (const scheme of ["light", "dark"]) {
            await tab.look(1280, scheme);
            grounds.push(await ask(tab, `style(".paper").fill`));
            await save(tab, `${chart}-${scheme}`, 800);
        }
        assert.notEqual(grounds[0], grounds[1]);
        assert.match(await ask(tab, "document.querySelector('title').textContent"), /\d/);
        await close(tab);
    }
    console.log("pages and charts of reports are as they should be");
} catch (error) {
    console.error(error);
    process.exitCode = 1;
} finally {
    await browser?.close();
}
