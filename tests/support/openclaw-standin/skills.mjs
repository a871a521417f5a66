// Managed skills as OpenClaw keeps them: a folder each below the state, with a note of where it came from.
import fs from "node:fs";
import path from "node:path";
import { isNew, stateDir } from "./settings.mjs";

const say = (value) => process.stdout.write(`${JSON.stringify(value, null, 2)}\n`);
const complain = (text) => {
  process.stderr.write(`${text}\n`);
  return 1;
};

function install(args) {
  const name = args[args.indexOf("--as") + 1];
  const [source] = args;
  if (!args.includes("--global") || !fs.existsSync(path.join(source, "SKILL.md"))) return complain(`unsupported skill: ${source}`);
  const place = path.join(stateDir, "skills", name);
  if (fs.existsSync(place) && !args.includes("--force")) return complain(`Skill already exists at ${place}. Re-run with force/update.`);
  fs.rmSync(place, { recursive: true, force: true });
  fs.cpSync(source, place, { recursive: true });
  fs.mkdirSync(path.join(place, ".openclaw"));
  fs.writeFileSync(path.join(place, ".openclaw", "source-origin.json"), JSON.stringify({ source: "path" }));
  process.stdout.write(`Installed ${name} from path -> ${place}\n`);
  return 0;
}

function info(name) {
  const place = path.join(stateDir, "skills", name);
  if (!fs.existsSync(path.join(place, "SKILL.md"))) {
    say(isNew ? { ok: false, error: { type: "cli_error", message: `Skill "${name}" not found.` }, skill: name } : { error: "not found", skill: name });
    return isNew ? 1 : 0;
  }
  say({ name, source: "openclaw-managed", bundled: false, baseDir: place, filePath: path.join(place, "SKILL.md"), eligible: true });
  return 0;
}

export function skills(args) {
  if (args[0] === "install") return install(args.slice(1));
  if (args[0] === "info") return info(args[1]);
  return complain(`error: unknown command 'skills ${args[0] ?? ""}'`);
}
