/** Builds the packages. The command is compiled against the built library, because that is what its users install. */
import { execFileSync } from "node:child_process"
import { rmSync } from "node:fs"
import { join } from "node:path"

const root = join(import.meta.dirname, "..")
const tsc = join(root, "node_modules/typescript/bin/tsc")

for (const folder of [root, join(root, "packages/cli")]) {
  rmSync(join(folder, "dist"), { recursive: true, force: true })
  execFileSync(process.execPath, [tsc, "--project", join(folder, "tsconfig.build.json")], { stdio: "inherit" })
}
