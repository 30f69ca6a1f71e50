// Parts that both pages share: the worker, and small things.

let next = 0;
const calls = new Map();
let worker = start();

function start() {
    const worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
    worker.onmessage = ({ data: { id, told, result, error } }) => {
        const call = calls.get(id);
        if (told) return call?.tell?.(told);
        calls.delete(id);
        if (error === undefined) call?.resolve(result);
        else call?.reject(new Error(error));
    };
    // It could not be loaded, or wasm came to a stop.
    worker.onerror = (event) => stop(event.message || "the worker of the page could not be loaded");
    return worker;
}

/** Ends what is under way; the next call begins anew. */
export function stop(reason) {
    worker.terminate();
    worker = start();
    for (const call of calls.values()) call.reject(new Error(reason));
    calls.clear();
}

/** Has the worker do something. */
export function call(verb, input, tell) {
    const id = next++;
    return new Promise((resolve, reject) => {
        calls.set(id, { resolve, reject, tell });
        worker.postMessage({ id, verb, input });
    });
}

export const at = (id) => document.getElementById(id);

/** An element of this kind with this content. */
export function element(kind, content = "", className = "") {
    const made = document.createElement(kind);
    made.append(...[content].flat());
    if (className) made.className = className;
    return made;
}

/** A table's row of these cells: text, or [text, class]. */
export function row(cells, kind = "td") {
    return element("tr", cells.map((cell) => element(kind, ...[cell].flat())));
}

/** A link by which the browser saves a file. */
export function saving(name, content, type) {
    const link = element("a", `Save ${name}`, "button");
    link.href = URL.createObjectURL(new Blob([content], { type }));
    link.download = name;
    return link;
}

/** Which backend is there, in a sentence. */
export function toldDevices({ devices, name }) {
    const gpu = devices.find((device) => !device.unusableBecause);
    if (gpu?.software) return `This browser offers a software driver as its GPU (${name || gpu.name}).`;
    if (gpu) return `This browser offers a GPU: ${name || gpu.name}.`;
    const why = devices[0]?.unusableBecause ?? (navigator.gpu ? "WebGPU has no adapter" : "it has no WebGPU here");
    return `This browser offers no GPU (${why}): the CPU backend in wasm does all. Plans are the same.`;
}
