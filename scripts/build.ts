/**
 * Builds all packages. The others are compiled against the built library, because that is what their users install. The command of the
 * gateway is a bundle, because who deploys it needs no packages.
 */
import { execFileSync } from "node:child_process"
import { rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { bundle, licences } from "./bundle.ts"

const root = join(import.meta.dirname, "..")
const tsc = join(root, "node_modules/typescript/bin/tsc")

for (const folder of [root, ...["redis", "gateway", "lab", "cli"].map((name) => join(root, "packages", name))]) {
  rmSync(join(folder, "dist"), { recursive: true, force: true })
  execFileSync(process.execPath, [tsc, "--project", join(folder, "tsconfig.build.json")], { stdio: "inherit" })
}

const program = join(root, "packages/gateway/dist/program")
const packages = await bundle(["redis", "ioredis"], { dir: program, format: "es" })
writeFileSync(join(program, "LICENSES.txt"), licences(packages))
