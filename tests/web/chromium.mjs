// Chromium without a window, by its own protocol over a pipe: nothing from a registry.
import { spawn } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { extname, join, normalize } from "node:path";

const TYPES = {
    ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".wasm": "application/wasm", ".json": "application/json",
};

/** Serves a folder to this machine; gives the address and what ends it. */
export async function serve(folder) {
    const server = createServer(async (request, answer) => {
        const path = normalize(new URL(request.url, "http://localhost").pathname);
        try {
            const bytes = await readFile(join(folder, path));
            answer.writeHead(200, { "content-type": TYPES[extname(path)] ?? "text/plain" }).end(bytes);
        } catch {
            answer.writeHead(404).end();
        }
    });
    await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
    const close = () => {
        server.closeAllConnections();
        server.close();
    };
    return { origin: `http://localhost:${server.address().port}`, close };
}

/** Starts Chromium with these flags. */
export async function launch(program, flags) {
    const profile = await mkdtemp(join(tmpdir(), "eplb-chromium-"));
    const fixed = ["--headless", "--no-sandbox", "--remote-debugging-pipe", "--no-first-run", `--user-data-dir=${profile}`];
    const child = spawn(program, [...fixed, ...flags], { stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"] });
    const ended = new Promise((resolve) => child.on("exit", resolve));
    const calls = new Map();
    const listeners = [];
    let next = 1;
    let rest = "";
    child.stdio[4].setEncoding("utf8").on("data", (data) => {
        const messages = (rest + data).split("\0");
        rest = messages.pop();
        for (const message of messages.map((text) => JSON.parse(text))) {
            const call = calls.get(message.id);
            calls.delete(message.id);
            if (message.error) call?.reject(new Error(message.error.message));
            else if (call) call.resolve(message.result);
            else listeners.forEach((listener) => listener(message));
        }
    });
    child.on("exit", () => calls.forEach((call) => call.reject(new Error("Chromium ended"))));
    const send = (method, params = {}, sessionId = undefined) =>
        new Promise((resolve, reject) => {
            const id = next++;
            calls.set(id, { resolve, reject });
            child.stdio[3].write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
        });
    const close = async () => {
        child.kill("SIGTERM");
        await ended;
        await rm(profile, { recursive: true, force: true, maxRetries: 5 });
    };
    const open = (url, before = []) => openPage(send, listeners, url, before);
    return { send, open, close };
}

/** Opens an address, after commands of the protocol that are for the page. */
async function openPage(send, listeners, url, before) {
    const { targetId } = await send("Target.createTarget", { url: "about:blank" });
    const { sessionId } = await send("Target.attachToTarget", { targetId, flatten: true });
    const to = (method, params) => send(method, params, sessionId);
    const requests = [];
    const troubles = [];
    const complaints = [];
    let loaded;
    listeners.push((message) => {
        if (message.sessionId !== sessionId) return;
        const { method, params } = message;
        if (method === "Network.requestWillBeSent") requests.push(params.request.url);
        if (method === "Page.loadEventFired") loaded?.();
        if (method === "Log.entryAdded" && params.entry.level === "error") complaints.push(params.entry.text);
        if (method === "Runtime.consoleAPICalled" && params.type === "error") complaints.push(JSON.stringify(params.args));
        if (method === "Runtime.exceptionThrown") troubles.push(params.exceptionDetails.exception?.description);
    });
    for (const domain of ["Page", "Network", "Runtime", "Log"]) await to(`${domain}.enable`);
    for (const [method, params] of before) await to(method, params);
    const load = new Promise((resolve) => (loaded = resolve));
    await to("Page.navigate", { url });
    await load;
    /** The value of an expression of JavaScript, awaited. */
    const run = async (expression) => {
        const options = { expression, awaitPromise: true, returnByValue: true };
        const { result, exceptionDetails } = await to("Runtime.evaluate", options);
        if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
        return result.value;
    };
    /** Waits until an expression is true. */
    const until = async (expression, seconds = 120) => {
        const end = Date.now() + seconds * 1e3;
        while (!(await run(expression))) {
            if (Date.now() > end) throw new Error(`not in ${seconds} s: ${expression}`);
            await new Promise((resolve) => setTimeout(resolve, 50));
        }
    };
    const press = async (key, code = key, text = undefined) => {
        await to("Input.dispatchKeyEvent", { type: "keyDown", key, code, text, windowsVirtualKeyCode: { Tab: 9, Enter: 13, ArrowRight: 39, ArrowDown: 40 }[key] });
        await to("Input.dispatchKeyEvent", { type: "keyUp", key, code });
    };
    const point = (x, y) => to("Input.dispatchMouseEvent", { type: "mouseMoved", x, y });
    const look = async (width, scheme, media = "") => {
        await to("Emulation.setDeviceMetricsOverride", { width, height: 800, deviceScaleFactor: 1, mobile: width < 500 });
        await to("Emulation.setEmulatedMedia", { media, features: [{ name: "prefers-color-scheme", value: scheme }] });
    };
    const shot = async (most = 2000) => {
        const height = Math.min(most, await run("document.documentElement.scrollHeight"));
        const width = await run("innerWidth");
        const clip = { x: 0, y: 0, width, height, scale: 1 };
        const { data } = await to("Page.captureScreenshot", { clip, captureBeyondViewport: true });
        return Buffer.from(data, "base64");
    };
    const close = () => send("Target.closeTarget", { targetId });
    return { to, run, until, press, point, look, shot, close, requests, troubles, complaints };
}

/** One check, with the time it took. */
export async function step(what, work) {
    const start = Date.now();
    try {
        await work();
    } catch (error) {
        console.error(`FAILED: ${what}`);
        throw error;
    }
    console.log(`${((Date.now() - start) / 1e3).toFixed(1)} s: ${what}`);
}
