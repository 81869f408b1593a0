/** Runs programs as if a package were not installed. `npm run pack:check` has projects that really lack it. */
import { spawnSync } from "node:child_process"
import { root } from "./modules.ts"

/** Fails as Node does for a package that is not installed. */
const hide = (name: string) => `import { registerHooks } from "node:module"
registerHooks({
  resolve(specifier, context, next) {
    if (!specifier.startsWith("${name}")) return next(specifier, context)
    const [name] = /^(?:@[^/]+\\/)?[^/]+/.exec(specifier)
    throw Object.assign(new Error("Cannot find package '" + name + "'"), { code: "ERR_MODULE_NOT_FOUND" })
  }
})`

/** Runs a program as if the package were not installed. */
export const runWithout = (
  name: string,
  program: string
): { readonly status: number | null; readonly stdout: string; readonly stderr: string } =>
  spawnSync(
    process.execPath,
    [
      "--conditions=@floodgate/source",
      "--import",
      `data:text/javascript,${encodeURIComponent(hide(name))}`,
      "--input-type=module",
      "--eval",
      program
    ],
    { cwd: root, encoding: "utf8" }
  )
