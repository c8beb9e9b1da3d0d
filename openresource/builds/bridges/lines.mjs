// Calls the exported functions of a module: a line {"id", "method", "input": {"args": […]}} in, a line with the result out.
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";
import { resolve } from "node:path";

console.log = console.info = console.debug = console.error;
const found = await import(pathToFileURL(resolve(process.argv[2])).href);

function functionOf(method) {
  const inner = found.default;
  const candidates = [
    found[method],
    inner?.[method],
    typeof inner?.default === "function" ? inner.default : undefined,
    typeof inner === "function" ? inner : undefined,
  ];
  return candidates.find((one) => typeof one === "function");
}

async function answer(method, input) {
  const wanted = functionOf(method ?? "call");
  if (!wanted) throw new TypeError(`there is no function ${method}`);
  const args = Array.isArray(input?.args) ? input.args : [input];
  return (await wanted.apply(found.default ?? found, args)) ?? null;
}

function write(value) {
  process.stdout.write(JSON.stringify(value) + "\n");
}

for await (const line of createInterface({ input: process.stdin })) {
  if (!line.trim()) continue;
  const call = JSON.parse(line);
  const isEnveloped = Number.isInteger(call?.id) && typeof call?.method === "string";
  const work = isEnveloped ? answer(call.method, call.input) : answer(process.argv[3], call);
  const done = work.then(
    (output) => write(isEnveloped ? { id: call.id, output } : output),
    (problem) => {
      console.error(problem);
      write(isEnveloped ? { id: call.id, error: String(problem?.message ?? problem) } : { error: String(problem?.message ?? problem) });
    },
  );
  if (!isEnveloped) await done;
}
