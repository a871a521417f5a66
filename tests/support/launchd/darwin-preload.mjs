// Makes a Node on Linux take itself for a Mac, so that OpenClaw runs its own launchd code. `plutil` is the one
// program it calls by an absolute path that Linux lacks.
import childProcess from "node:child_process";
import { syncBuiltinESMExports } from "node:module";
import os from "node:os";
import { fileURLToPath } from "node:url";

const plutil = fileURLToPath(new URL("plutil.py", import.meta.url));
const mapped = (file) => (file === "/usr/bin/plutil" ? plutil : file);

Object.defineProperty(process, "platform", { value: "darwin" });
os.platform = () => "darwin";
os.type = () => "Darwin";
os.release = () => "25.3.0";
const userInfo = os.userInfo;
os.userInfo = (options) => ({ ...userInfo(options), homedir: process.env.HOME, username: "fleet" });

const promisified = Symbol.for("nodejs.util.promisify.custom");
for (const name of ["spawn", "execFile", "spawnSync", "execFileSync"]) {
  const original = childProcess[name];
  childProcess[name] = function (file, ...rest) {
    return original.call(this, mapped(file), ...rest);
  };
  if (original[promisified]) {
    childProcess[name][promisified] = (file, ...rest) => original[promisified](mapped(file), ...rest);
  }
}
syncBuiltinESMExports();
