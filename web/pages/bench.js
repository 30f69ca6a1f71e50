import { at, call, element, row, saving, stop, toldDevices } from "./page.js";

// For tests: cases with this in their names alone.
const only = new URLSearchParams(location.search).get("only") ?? "";
// Devices of the runs so far, by name, in the order in which they began.
let devices = [];
let gpuName = "";

call("devices").then((told) => {
    gpuName = told.name;
    at("devices").textContent = toldDevices(told);
    if (!told.devices.some((device) => !device.unusableBecause)) at("device").options[1].disabled = true;
    at("go").disabled = false;
}, refuse);

function refuse(error) {
    at("error").textContent = error.message;
}

at("stop").onclick = () => stop("stopped");

at("form").onsubmit = async (event) => {
    event.preventDefault();
    devices = [];
    for (const id of ["error", "verdict"]) at(id).textContent = "";
    for (const id of ["results", "files"]) at(id).replaceChildren();
    show(true);
    at("state").textContent = "Starting…";
    const start = performance.now();
    const seconds = () => ((performance.now() - start) / 1e3).toFixed(0);
    // Told before each plan: the seconds go on while one takes long.
    let told;
    const tell = () => {
        if (!told) return (at("state").textContent = `Starting, ${seconds()} s`);
        at("progress").value = told.done / told.all;
        at("state").textContent = `${told.done} of ${told.all} steps, ${seconds()} s: ${name(told.device)}: ${told.now}`;
    };
    const clock = setInterval(tell, 1000);
    try {
        const input = { device: at("device").value || undefined, only, platform: platform() };
        const text = await call("bench", input, (news) => {
            told = news;
            tell();
            note(news.device);
        });
        const record = JSON.parse(text);
        devices = record.devices;
        draw();
        at("state").textContent = `Done in ${seconds()} s`;
        judge();
        at("files").replaceChildren(saving("eplb-bench.json", `${text}\n`, "application/json"));
    } catch (error) {
        refuse(error);
        at("state").textContent = "";
    }
    clearInterval(clock);
    show(false);
};

function show(working) {
    at("go").disabled = working;
    at("stop").hidden = !working;
    at("progress").hidden = !working;
    at("progress").value = 0;
}

/** The machine, as a record names it; the browser tells no more. */
function platform() {
    return `wasm32, ${navigator.userAgent}`;
}

const name = (device) => (device.backend === "webgpu" ? gpuName || device.name : device.name);

/** Takes the newest state of a device. */
function note(device) {
    const last = devices.at(-1);
    if (last && last.backend === device.backend && last.name === device.name) devices.pop();
    devices.push(device);
    draw();
}

/** The fingerprint that a case should have: that of the CPU backend, or of whoever came first. */
function reference(wanted) {
    const order = [...devices].sort((a, b) => (b.backend === "cpu") - (a.backend === "cpu"));
    const cases = order.flatMap((device) => device.cases);
    return cases.find((c) => c.case === wanted.case && c.preset === wanted.preset)?.fingerprint;
}

function draw() {
    const several = devices.length > 1;
    at("results").replaceChildren(...devices.map((device) => {
        const table = element("table");
        const kind = device.software ? "a software driver" : device.backend === "cpu" ? "wasm, one thread" : "WebGPU";
        table.append(element("caption", `${name(device)} (${kind})`));
        table.append(element("thead", row(["Case, preset", "Later plans, ms", "First, ms", "Fingerprint"], "th")));
        const cells = device.cases.map((c) => {
            const equal = c.fingerprint === reference(c);
            const mark = [`${c.fingerprint} ${!several ? "" : equal ? "equal" : "DIFFERS"}`, !several ? "" : equal ? "good" : "bad"];
            return row([`${c.case}, ${c.preset}`, [c.later_ms.toFixed(1), "number"], [c.first_ms.toFixed(1), "number"], mark]);
        });
        table.append(element("tbody", cells));
        const parts = [element("div", table, "scroll")];
        const { batch, error } = device;
        if (batch) {
            const rate = batch.candidates_per_second;
            const speed = rate ? `, ${rate.toLocaleString("en")} candidates/s` : "";
            parts.push(element("p", `A fixed batch of ${batch.candidates} candidates: ${batch.total_ms.toFixed(1)} ms${speed}`, "dim"));
        }
        if (error) parts.push(element("p", error, "warning"));
        return element("section", parts);
    }));
}

function judge() {
    const cases = devices.flatMap((device) => device.cases);
    const differ = cases.filter((c) => c.fingerprint !== reference(c)).length;
    const failed = devices.filter((device) => device.error).length;
    const words = [];
    if (differ) words.push(`${differ} of ${cases.length} fingerprints differ.`);
    else if (devices.length > 1) words.push(`All fingerprints are equal on ${devices.length} devices.`);
    else words.push("One device ran: nothing to compare.");
    if (failed) words.push(`${failed} devices failed.`);
    at("verdict").textContent = words.join(" ");
    at("verdict").className = differ || failed ? "bad" : "good";
}
