// Makes plans on Dawn, as src/engine/gpu.rs does on wgpu: {shaders, replays} on stdin, see `Replay` in
// src/testing.rs; the result of one replay a line on stdout, its words as a JSON array.
import { device, input } from './dawn.mjs';

const { COMPUTE } = GPUShaderStage;
const { UNIFORM, STORAGE, INDIRECT, COPY_SRC, COPY_DST, MAP_READ } = GPUBufferUsage;
const LANES = 64;
const MAX_GRID = 65535;
// Where the grids lie that `tally` in queue.wgsl sizes.
const INDIRECT_AT = {
  queued: 0, queued_teams: 12, queued_blocks: 24, queued_several: 36, queued_several_blocks: 48,
};
const DISPATCHES_PER_SUBMISSION = 256;

const layoutOf = (types) =>
  device.createBindGroupLayout({
    entries: types.map((type, binding) => ({
      binding,
      visibility: COMPUTE,
      buffer: { type, hasDynamicOffset: type === 'uniform' },
    })),
  });
const bind = (layout, resources) =>
  device.createBindGroup({
    layout,
    entries: resources.map((resource, binding) => ({ binding, resource })),
  });
const bufferOf = (words, usage) => device.createBuffer({ size: Math.max(4 * words, 16), usage });

device.pushErrorScope('validation');
const bindings = layoutOf(['uniform', 'read-only-storage', 'storage', 'storage', 'storage', 'storage']);
const gridBindings = layoutOf(['storage']);
const layouts = [[bindings], [bindings, gridBindings]].map((bindGroupLayouts) =>
  device.createPipelineLayout({ bindGroupLayouts }),
);
const modules = Object.fromEntries(
  Object.entries(input.shaders).map(([stem, code]) => [stem, device.createShaderModule({ code })]),
);
const pipelines = new Map();
const pipeline = async ([stem, entryPoint], constants) => {
  const key = `${stem}.${entryPoint} ${JSON.stringify(constants)}`;
  if (!pipelines.has(key)) {
    const layout = layouts[stem === 'queue' ? 1 : 0];
    const compute = { module: modules[stem], entryPoint, constants };
    pipelines.set(key, await device.createComputePipelineAsync({ layout, compute }));
  }
  return pipelines.get(key);
};

const grids = bufferOf(15, STORAGE | INDIRECT);
const gridsGroup = bind(gridBindings, [{ buffer: grids }]);

for (const { dispatches, problem, words, result } of input.replays) {
  const blockBytes = 4 * dispatches[0].params.length;
  const alignment = device.limits.minUniformBufferOffsetAlignment;
  const stride = Math.ceil(blockBytes / alignment) * alignment;
  const blocks = new Uint32Array((dispatches.length * stride) / 4);
  dispatches.forEach(({ params }, at) => blocks.set(params, (at * stride) / 4));
  const paramsBuffer = bufferOf(blocks.length, UNIFORM | COPY_DST);
  const problemBuffer = bufferOf(problem.length, STORAGE | COPY_DST);
  const [groups, kept, arena, queue] = words.map((words) => bufferOf(words, STORAGE | COPY_SRC));
  const staging = bufferOf(result[1], COPY_DST | MAP_READ);
  device.queue.writeBuffer(paramsBuffer, 0, blocks);
  device.queue.writeBuffer(problemBuffer, 0, new Uint32Array(problem));
  const block = { buffer: paramsBuffer, size: blockBytes };
  const buffers = [problemBuffer, groups, kept, arena, queue].map((buffer) => ({ buffer }));
  const group = bind(bindings, [block, ...buffers]);

  for (let at = 0; at < dispatches.length; at += DISPATCHES_PER_SUBMISSION) {
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    for (const [index, { kernel, grid, constants }] of dispatches.slice(at, at + DISPATCHES_PER_SUBMISSION).entries()) {
      pass.setPipeline(await pipeline(kernel, constants));
      pass.setBindGroup(0, group, [(at + index) * stride]);
      if (typeof grid === 'number') {
        pass.setBindGroup(1, gridsGroup);
        const workgroups = Math.ceil(grid / LANES);
        const x = Math.min(workgroups, MAX_GRID);
        pass.dispatchWorkgroups(x, Math.ceil(workgroups / x));
      } else {
        pass.dispatchWorkgroupsIndirect(grids, INDIRECT_AT[grid]);
      }
    }
    pass.end();
    device.queue.submit([encoder.finish()]);
  }
  const encoder = device.createCommandEncoder();
  encoder.copyBufferToBuffer(kept, 4 * result[0], staging, 0, 4 * result[1]);
  device.queue.submit([encoder.finish()]);
  await staging.mapAsync(GPUMapMode.READ);
  console.log(JSON.stringify([...new Uint32Array(staging.getMappedRange(0, 4 * result[1]))]));
  for (const buffer of [paramsBuffer, problemBuffer, groups, kept, arena, queue, staging]) buffer.destroy();
}
const refused = await device.popErrorScope();
if (refused) throw new Error(refused.message);
console.log(`ran ${input.replays.length}`);
device.destroy();
process.exit(0);
