// The planner, on a thread of its own: the CPU backend would stop a page.
import init, * as eplb from "./eplb_wgpu.js";

const ready = init();
let planners = {};

/** The planner on a device, opened once. */
async function planner(choice) {
    planners[choice] ??= await eplb.Planner.open(choice);
    return planners[choice];
}

/** The name of the GPU, as far as the browser tells it. */
async function gpuName() {
    const adapter = await navigator.gpu?.requestAdapter();
    const { description, vendor, architecture } = adapter?.info ?? {};
    return description || [vendor, architecture].filter(Boolean).join(" ");
}

const work = {
    async devices() {
        return { devices: await eplb.devices(), name: await gpuName(), presets: eplb.presets() };
    },

    async plan({ bytes, cluster, options, device }, tell) {
        const loads = eplb.Loads.read(new Uint8Array(bytes));
        const { replicas, groups, nodes, gpus } = cluster;
        const shape = new eplb.Cluster(replicas, groups, nodes, gpus);
        const maker = await planner(device);
        const plan = await maker.plan(loads, shape, options, (done, all) => tell({ done, all }));
        // By other code than the planner's.
        const quality = eplb.check(loads, shape, plan.physicalToLogical);
        const files = Object.fromEntries(["eplb", "sglang", "vllm"].map((form) => [form, plan.bytes(form)]));
        const { layers, slots, fingerprint, backend, warnings, elapsedMs } = plan;
        const name = backend === "webgpu" ? (await gpuName()) || plan.device : plan.device;
        return { layers, slots, fingerprint, backend, device: name, warnings, elapsedMs, quality, files };
    },

    async bench({ device, only, platform }, tell) {
        return await eplb.bench(device, only, platform, await gpuName(), tell);
    },

    async fingerprints({ device, only }) {
        return await eplb.fingerprints(device, only);
    },
};

onmessage = async ({ data: { id, verb, input } }) => {
    try {
        await ready;
        postMessage({ id, result: await work[verb](input ?? {}, (told) => postMessage({ id, told })) });
    } catch (error) {
        postMessage({ id, error: error.message ?? String(error) });
    }
};
