// Compiles WGSL with Tint, by Dawn: a JSON array of {place, source, entry_point, constants} on stdin, one complaint
// a line on stdout. The text is judged before a driver sees it.
import { device, input } from './dawn.mjs';

for (const { place, source, entry_point, constants } of input) {
  device.pushErrorScope('validation');
  const module = device.createShaderModule({ code: source });
  for (const { type, lineNum, linePos, message } of (await module.getCompilationInfo()).messages) {
    console.log(`${place}: ${type} at ${lineNum}:${linePos}: ${message.split('\n')[0]}`);
  }
  const compute = { module, entryPoint: entry_point, constants };
  const refused = await device.createComputePipelineAsync({ layout: 'auto', compute }).then(
    () => null,
    (error) => error,
  );
  const said = refused ?? (await device.popErrorScope());
  if (said) console.log(`${place}: ${said.message.split('\n')[0]}`);
}
console.log(`compiled ${input.length}`);
device.destroy();
process.exit(0);
