import { at, call, element, row, saving, stop, toldDevices } from "./page.js";

let file;
let busy = false;

call("devices").then((told) => {
    at("devices").textContent = toldDevices(told);
    at("preset").replaceChildren(...told.presets.map((name) => new Option(name)));
    if (!told.devices.some((device) => !device.unusableBecause)) at("device").options[1].disabled = true;
}, refuse);

function refuse(error) {
    at("error").textContent = error.message;
}

/** Takes a file to plan. */
function take(chosen) {
    if (!chosen) return;
    file = chosen;
    at("state").textContent = `${file.name}, ${file.size.toLocaleString("en")} bytes`;
    at("go").disabled = busy;
}

at("file").onchange = () => take(at("file").files[0]);
// Wherever on the page it is dropped.
document.ondragover = (event) => {
    event.preventDefault();
    at("drop").classList.add("over");
};
document.ondragleave = () => at("drop").classList.remove("over");
document.ondrop = (event) => {
    event.preventDefault();
    at("drop").classList.remove("over");
    at("file").files = event.dataTransfer.files;
    take(at("file").files[0]);
    if (file && !busy) at("form").requestSubmit();
};
at("stop").onclick = () => stop("stopped");

at("form").onsubmit = async (event) => {
    event.preventDefault();
    if (!file || busy) return;
    show(true);
    at("error").textContent = "";
    at("result").hidden = true;
    const number = (id) => Number(at(id).value);
    const [replicas, groups, nodes, gpus] = ["replicas", "groups", "nodes", "gpus"].map(number);
    const input = {
        cluster: { replicas, groups, nodes, gpus },
        options: { preset: at("preset").value },
        device: at("device").value,
    };
    try {
        input.bytes = await file.arrayBuffer();
        const plan = await call("plan", input, ({ done, all }) => {
            at("progress").value = done / all;
            at("state").textContent = `${done} of ${all} layers`;
        });
        tell(plan, gpus);
    } catch (error) {
        refuse(error);
        at("state").textContent = file.name;
    }
    show(false);
};

/** Whether a plan is being made. */
function show(working) {
    busy = working;
    at("go").disabled = working;
    at("stop").hidden = !working;
    at("progress").hidden = !working;
    at("progress").value = 0;
}

function tell(plan, gpus) {
    const { quality } = plan;
    const by = plan.backend === "webgpu" ? `the GPU by WebGPU (${plan.device})` : "the CPU backend in wasm";
    at("state").textContent = `${file.name}: planned`;
    at("made").textContent =
        `Made by ${by} in ${plan.elapsedMs.toFixed(0)} ms; checked by code that shares nothing with the planner.`;
    at("warnings").replaceChildren(...plan.warnings.map((text) => element("p", text, "warning")));
    const percent = (part) => `${(part * 100).toFixed(3)} %`;
    const tiles = [
        ["Balancedness", quality.balancedness.toFixed(5)],
        ["Heaviest over mean", quality.maxOverMean.toFixed(5)],
        ["Mean gap to the bound", percent(quality.meanGap)],
        ["Worst gap to the bound", percent(quality.worstGap)],
        ["Experts twice on a GPU", quality.sameGpuDuplicates],
        ["Layers, slots, GPUs", `${plan.layers}, ${plan.slots}, ${gpus}`],
        ["Fingerprint", plan.fingerprint],
    ];
    const tile = ([name, value]) => element("div", [element("dt", name), element("dd", String(value))]);
    at("tiles").replaceChildren(...tiles.map(tile));
    const names = { eplb: "plan.json", sglang: "sglang.json", vllm: "vllm.json" };
    const link = ([form, bytes]) => saving(names[form], bytes, "application/json");
    at("files").replaceChildren(...Object.entries(plan.files).map(link));
    at("head").replaceChildren(row(["Layer", "Heaviest GPU", "Mean GPU", "Lower bound", "Gap"], "th"));
    const whole = (load) => [load.toLocaleString("en", { maximumFractionDigits: 1 }), "number"];
    const layer = (l, i) =>
        row([`${i}`, whole(l.maxGpuLoad), whole(l.meanGpuLoad), whole(l.lowerBound), [l.gap === null ? "-" : percent(l.gap), "number"]]);
    at("layers").replaceChildren(...quality.layers.map(layer));
    at("result").hidden = false;
}
