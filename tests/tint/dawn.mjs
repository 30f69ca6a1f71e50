// A device of Dawn, and what stands on stdin. Any Vulkan driver that Dawn takes will do.
import { readFileSync } from 'node:fs';
import { create, globals } from 'webgpu';

Object.assign(globalThis, globals);
// Exported to be kept: a device does not outlive it, and a variable of a module may go once the module ran.
export const gpu = create([]);
const adapter = await gpu.requestAdapter();
if (!adapter) throw new Error('Dawn finds no adapter');
export const device = await adapter.requestDevice();
export const input = JSON.parse(readFileSync(0, 'utf8'));
