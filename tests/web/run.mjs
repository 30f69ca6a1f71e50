// run.mjs PACKAGE CHROMIUM OUT: the package and the pages in Chromium. What fails is said, and ends it.
import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { launch, serve, step } from "./chromium.mjs";

const [folder, program, out] = process.argv.slice(2);
// A software driver in the place of a GPU. Without these flags there is no adapter.
const SWIFTSHADER = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"];

const server = await serve(folder);
const page = (name) => `${server.origin}/${name}`;
let browser;

/** The package in a page, with a small problem, as `eplb`, `loads`, `cluster`, `plan(planner)`. */
async function packageIn(before = "") {
    const opened = await browser.open(page("package.json"));
    await opened.run(`(async () => {
        ${before};
        globalThis.eplb = await import("/eplb_wgpu.js");
        await eplb.default();
        const values = Float64Array.from({ length: 4 * 64 }, (_, i) => 1000 + ((i * i * 7919) % 50021));
        globalThis.loads = new eplb.Loads(4, 64, values);
        globalThis.cluster = new eplb.Cluster(80, 8, 2, 16);
        globalThis.plan = async (planner, options = { preset: "fast" }) => {
            const { backend, warnings, fingerprint } = await planner.plan(loads, cluster, options);
            return { backend, warnings, fingerprint };
        };
        globalThis.expected = (await plan(await eplb.Planner.open("cpu"))).fingerprint;
    })()`);
    return opened;
}

/** Drops a file with this text on the page. */
const drop = (name, text) => `(() => {
    const data = new DataTransfer();
    data.items.add(new File([${JSON.stringify(text)}], ${JSON.stringify(name)}));
    document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
})()`;

const rows = Array.from({ length: 6 }, (_, l) => Array.from({ length: 64 }, (_, e) => 10 + ((l * 64 + e) ** 2 * 7919) % 5003));
const LOADS = JSON.stringify({ logical_count: [rows] });
const text = (id) => `document.getElementById(${JSON.stringify(id)}).textContent`;

async function fingerprints() {
    const tab = await browser.open(page("bench.html"));
    for (const device of ["cpu", "gpu"]) {
        await step(`fingerprints, ${device}`, async () => {
            const input = JSON.stringify({ device, only: [] });
            const outcome = await tab.run(`import("./page.js").then(({ call }) => call("fingerprints", ${input}))`);
            assert.deepEqual([outcome.differing, outcome.warnings, outcome.equal], [[], [], true]);
            assert.ok(outcome.cases > 80);
            console.log(`    ${outcome.cases} cases, equal, on ${outcome.device}`);
        });
    }
    await tab.close();
}

async function planPage() {
    const tab = await browser.open(page("index.html"));
    await tab.until(`${text("devices")}.includes("offers")`);
    const said = await tab.run(text("devices"));
    assert.match(said, /software driver as its GPU/);
    const prints = [];
    for (const [device, by] of [["auto", /the CPU backend in wasm/], ["gpu", /the GPU by WebGPU/], ["cpu", /the CPU backend/]]) {
        await tab.run(`for (const [id, value] of Object.entries({ replicas: 80, gpus: 16, nodes: 2, groups: 8 }))
            document.getElementById(id).value = value;
            document.getElementById("device").value = "${device}"; document.getElementById("result").hidden = true`);
        await tab.run(drop("loads.json", LOADS));
        await tab.until(`!document.getElementById("result").hidden || ${text("error")}`);
        assert.equal(await tab.run(text("error")), "");
        assert.match(await tab.run(text("made")), by);
        const warned = device === "auto" ? /^WebGPU has no GPU here, only .*: a software driver; the CPU backend made the plan$/ : /^$/;
        assert.match(await tab.run(text("warnings")), warned);
        prints.push(await tab.run(`document.querySelector("#tiles div:last-child dd").textContent`));
        assert.equal(await tab.run(`document.querySelectorAll("#layers tr").length`), 6);
    }
    assert.match(prints[0], /^[0-9a-f]{16}$/);
    assert.deepEqual(prints, [prints[0], prints[0], prints[0]]);
    const plan = await tab.run(`fetch(document.querySelector("#files a").href).then((answer) => answer.text())`);
    await writeFile(join(out, "plan.json"), plan);
    await writeFile(join(out, "loads.json"), LOADS);
    assert.equal(JSON.parse(plan).fingerprint, prints[0]);
    await shots(tab, "plan");
    await tab.run(drop("loads.json", "{"));
    await tab.until(text("error"));
    await tab.run(`document.getElementById("gpus").value = 7`);
    await tab.run(drop("loads.json", LOADS));
    await tab.until(`${text("error")}.includes("7")`);
    assert.deepEqual(tab.troubles, []);
    assert.deepEqual(tab.requests.filter((url) => !/^(blob:)?http:\/\/localhost/.test(url) && !url.startsWith("data:")), []);
    await tab.close();
}

async function benchPage() {
    const tab = await browser.open(page("bench.html"));
    await tab.until(`!document.getElementById("go").disabled`);
    // By keyboard: to the button and on.
    for (let n = 0; (await tab.run("document.activeElement.id")) !== "go"; n++) {
        assert.ok(n < 10, "the button is not reached by Tab");
        await tab.press("Tab");
    }
    await tab.press("Enter", "Enter", "\r");
    // Told before the first step is done.
    await tab.until(`/^0 of 46 steps, \\d+ s: .*: 16 x 256, .*, plan 1$/.test(${text("state")})`);
    await tab.until(`document.getElementById("progress").value > 0`);
    await tab.until(`${text("verdict")} || ${text("error")}`, 300);
    assert.equal(await tab.run(text("verdict")), "All fingerprints are equal on 2 devices.");
    const record = await tab.run(`fetch(document.querySelector("#files a").href).then((answer) => answer.text())`);
    const { devices } = JSON.parse(record);
    assert.deepEqual(devices.map(({ backend, error }) => [backend, error]), [["webgpu", null], ["cpu", null]]);
    await writeFile(join(out, "bench.json"), record);
    await shots(tab, "bench");
    const none = tab.run(`import("./page.js").then(({ call }) => call("bench", { device: "cpu", only: "no such", platform: "" }))`);
    await assert.rejects(none, /only "no such" is in the name of no case/);
    assert.deepEqual(tab.troubles, []);
    await tab.close();
}

/** Pictures of a page; on a narrow screen nothing sticks out. */
async function shots(tab, name) {
    for (const [width, scheme] of [[1280, "light"], [1280, "dark"], [390, "light"], [390, "dark"]]) {
        await tab.look(width, scheme);
        await writeFile(join(out, `${name}-${width}-${scheme}.png`), await tab.shot());
        assert.ok((await tab.run("document.documentElement.scrollWidth")) <= width, `${name} is wider than ${width}`);
    }
}

const KEEP = `globalThis.opened = [];
    const request = GPUAdapter.prototype.requestDevice;
    GPUAdapter.prototype.requestDevice = async function (...args) {
        if (globalThis.refusal) throw new Error(globalThis.refusal);
        const device = await request.apply(this, args);
        opened.push(device);
        if (globalThis.doomed) device.destroy();
        return device;
    }`;
const FELL_BACK = /^device .* \(webgpu\) failed: .*; the CPU backend made the plan$/;

/** A plan of the CPU backend because of a fault, with these words. */
function fellBack(made, expected, words) {
    assert.deepEqual([made.backend, made.fingerprint], ["cpu", expected]);
    assert.match(made.warnings.join("\n"), FELL_BACK);
    assert.match(made.warnings[0], words);
}

/** Does something once work is submitted to a device. */
const atFirst = (deed) => `{
    const submit = GPUQueue.prototype.submit;
    GPUQueue.prototype.submit = function (...args) {
        GPUQueue.prototype.submit = submit;
        submit.apply(this, args);
        ${deed};
    };
}`;

async function lostDevices() {
    const tab = await packageIn(KEEP);
    const expected = await tab.run("expected");
    const onGpu = { backend: "webgpu", warnings: [], fingerprint: expected };
    await tab.run(`eplb.Planner.open("gpu").then((made) => { globalThis.planner = made; })`);
    const plan = () => tab.run("plan(planner)");
    await step("a device makes a plan, and two at once", async () => {
        assert.deepEqual(await plan(), onGpu);
        assert.deepEqual(await tab.run("Promise.all([plan(planner), plan(planner)])"), [onGpu, onGpu]);
    });
    await step("a destroyed device is opened again by the next call", async () => {
        await tab.run("opened.at(-1).destroy()");
        fellBack(await plan(), expected, /device lost: it was destroyed/);
        assert.deepEqual(await plan(), onGpu);
        assert.equal(await tab.run("opened.length"), 2);
    });
    await step("a device lost in mid-plan", async () => {
        const made = await tab.run(`${atFirst("opened.at(-1).destroy()")}; plan(planner)`);
        fellBack(made, expected, /device lost: it was destroyed/);
        assert.deepEqual(await plan(), onGpu);
    });
    await step("without a fallback a loss is thrown", async () => {
        await tab.run("opened.at(-1).destroy()");
        await assert.rejects(tab.run("plan(planner.withoutFallback())"), /Error: device .* failed: device lost/);
        assert.deepEqual(await plan(), onGpu);
    });
    await step("the crash of the browser's GPU process", async () => {
        await browser.send("Browser.crashGpuProcess").catch(() => {});
        const made = await plan();
        if (made.backend === "cpu") fellBack(made, expected, /lost/);
        else assert.deepEqual(made, onGpu);
        let last;
        for (let n = 0; n < 3 && last?.backend !== "webgpu"; n++) last = await plan();
        assert.deepEqual(last, onGpu);
    });
    await step("work that the device refuses costs one call", async () => {
        const before = await tab.run("opened.length");
        // The buffers of an earlier call are large enough: this is a larger one.
        const refused = await tab.run(`(async () => {
            const make = GPUDevice.prototype.createBuffer;
            GPUDevice.prototype.createBuffer = function (wanted) {
                return make.call(this, { ...wanted, size: 2 ** 40 });
            };
            const large = new eplb.Loads(8, 64, Float64Array.from({ length: 8 * 64 }, (_, i) => 1 + ((i * 7919) % 5003)));
            const made = await planner.plan(large, cluster, { preset: "fast" });
            GPUDevice.prototype.createBuffer = make;
            return { backend: made.backend, warnings: made.warnings };
        })()`);
        assert.equal(refused.backend, "cpu");
        assert.match(refused.warnings.join("\n"), FELL_BACK);
        assert.doesNotMatch(refused.warnings[0], /lost/);
        assert.deepEqual(await plan(), onGpu);
        assert.equal(await tab.run("opened.length"), before);
    });
    await step("a call is stopped, and the next one runs", async () => {
        await assert.rejects(tab.run(`${atFirst("planner.cancel()")}; plan(planner)`), /cancelled|stopped/);
        assert.deepEqual(await plan(), onGpu);
    });
    await step("a device that is always lost stays closed", async () => {
        await tab.run("globalThis.doomed = true; opened.at(-1).destroy()");
        let made;
        for (let n = 0; n < 5; n++) made = await plan();
        fellBack(made, expected, /lost 4 times in a row and is not opened again/);
    });
    assert.deepEqual(tab.troubles, []);
    await tab.close();
}

async function refusedDevice() {
    const honest = `${KEEP}; globalThis.refusal = "no device today";
        Object.defineProperty(GPUAdapterInfo.prototype, "isFallbackAdapter", { get: () => false });
        Object.defineProperty(GPUAdapterInfo.prototype, "description", { get: () => "a GPU" })`;
    const tab = await packageIn(honest);
    const auto = await tab.run(`eplb.Planner.open("auto").then(plan)`);
    fellBack(auto, await tab.run("expected"), /no device today/);
    await assert.rejects(tab.run(`eplb.Planner.open("gpu")`), /device a GPU \(webgpu\) failed: .*no device today/);
    // An adapter that calls itself a GPU is what `auto` takes.
    await tab.run("globalThis.refusal = undefined");
    assert.equal((await tab.run(`eplb.Planner.open("auto").then(plan)`)).backend, "webgpu");
    await tab.close();
}

async function api() {
    const tab = await packageIn();
    const found = await tab.run(`(async () => {
        const planner = await eplb.Planner.open("cpu");
        const told = [];
        const made = await planner.plan(loads, cluster, { seed: 7 }, (done, layers) => told.push([done, layers]));
        const map = made.physicalToLogical;
        const quality = eplb.check(loads, cluster, map);
        const moved = planner.replan(loads, cluster, map, {}, { maxMoves: 3 });
        const thrown = (work) => { try { work(); return ""; } catch (error) { return error.message; } };
        const broken = map.slice(); broken[0] = 64;
        return {
            told, even: quality.balancedness, same: made.quality().balancedness, received: moved.moves.received,
            lists: made.logicalToPhysical.length === 4 * 64 * made.maxReplicas,
            counts: made.replicaCounts.reduce((a, b) => a + b, 0),
            errors: [
                thrown(() => new eplb.Cluster(80, 8, 2, 15)),
                thrown(() => new eplb.Loads(4, 64, new Float64Array(3))),
                thrown(() => eplb.check(loads, cluster, broken)),
                thrown(() => planner.replan(loads, cluster, map, { speed: 1 })),
                await planner.plan(loads, cluster, { preset: "quick" }).then(() => "", (error) => error.message),
            ],
        };
    })()`);
    assert.deepEqual(found.told, [[1, 4], [2, 4], [3, 4], [4, 4]]);
    assert.ok(found.even > 0.9 && found.even === found.same, String(found.even));
    assert.ok(found.received <= 3 && found.lists && found.counts === 4 * 80);
    const [cluster, loads, map, option, preset] = found.errors;
    assert.match(cluster, /15/);
    assert.match(loads, /3/);
    assert.match(map, /64/);
    assert.match(option, /speed/);
    assert.match(preset, /quick/);
    await tab.close();
}

async function noAdapter() {
    const tab = await browser.open(page("index.html"));
    await tab.until(`${text("devices")}.includes("offers")`);
    assert.match(await tab.run(text("devices")), /offers no GPU .*: the CPU backend in wasm does all/);
    assert.equal(await tab.run(`document.getElementById("device").options[1].disabled`), true);
    await tab.run(`for (const [id, value] of Object.entries({ replicas: 80, gpus: 16, nodes: 2, groups: 8 }))
        document.getElementById(id).value = value`);
    await tab.run(drop("loads.json", LOADS));
    await tab.until(`!document.getElementById("result").hidden`);
    assert.match(await tab.run(text("made")), /Made by the CPU backend in wasm/);
    assert.equal(await tab.run(text("warnings")), "WebGPU has no adapter here; the CPU backend made the plan");
    const gpu = tab.run(`import("./page.js").then(({ call }) => call("fingerprints", { device: "gpu", only: [] }))`);
    await assert.rejects(gpu, /device gpu is not here; found: none/);
    await tab.close();
}

try {
    browser = await launch(program, SWIFTSHADER);
    const { product } = await browser.send("Browser.getVersion");
    console.log(`${product}, WebGPU on SwiftShader: a software driver, no GPU`);
    await fingerprints();
    await step("the package: plan, check, replan, and what they throw", api);
    await step("the page of plans", planPage);
    await step("the page of benchmarks", benchPage);
    await step("a device that is refused", refusedDevice);
    await lostDevices();
    await browser.close();
    browser = await launch(program, []);
    await step("a browser without an adapter", noAdapter);
} catch (error) {
    console.error(error);
    process.exitCode = 1;
} finally {
    await browser?.close();
    server.close();
}
