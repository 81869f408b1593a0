/** Builds all packages. The others are compiled against the built library, because that is what their users install. */
import { execFileSync } from "node:child_process"
import { rmSync } from "node:fs"
import { join } from "node:path"

const root = join(import.meta.dirname, "..")
const tsc = join(root, "node_modules/typescript/bin/tsc")

for (const folder of [root, ...["redis", "gateway", "lab", "cli"].map((name) => join(root, "packages", name))]) {
  rmSync(join(folder, "dist"), { recursive: true, force: true })
  execFileSync(process.execPath, [tsc, "--project", join(folder, "tsconfig.build.json")], { stdio: "inherit" })
}
