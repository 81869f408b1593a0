/**
 * Other commits beside the working tree, so that one benchmark can run both. A checkout uses the packages that are installed
 * here, so that what differs is our code alone. It lies inside the root, where packages are found, and not in `node_modules`,
 * where Node does not strip types.
 */
import { execFileSync, spawnSync } from "node:child_process"
import { cpSync, mkdirSync, readdirSync, symlinkSync } from "node:fs"
import { join } from "node:path"

const root = join(import.meta.dirname, "../..")

/** The abbreviated hash of a commit; undefined if the repository has no such commit. */
export const resolved = (commit: string): string | undefined => {
  const { status, stdout } = spawnSync("git", ["rev-parse", "--short", "--verify", "--quiet", `${commit}^{commit}`], {
    cwd: root,
    encoding: "utf8"
  })
  return status === 0 ? stdout.trim() : undefined
}

/** Copies what today's benchmark needs into another checkout, so it may use public names of both versions, and nothing else. */
export const bring = (checkout: string, path: string): void =>
  cpSync(join(root, path), join(checkout, path), { recursive: true })

/** Writes the files of a commit into a new folder. If `commit` is undefined, it writes those of the working tree. */
export const checkOut = (commit: string | undefined, checkout: string): void => {
  mkdirSync(join(checkout, "node_modules/@floodgate"), { recursive: true })
  const files =
    commit === undefined
      ? execFileSync("tar", ["-c", "--exclude=node_modules", "src", "packages", "package.json"], {
          cwd: root,
          maxBuffer: 2 ** 30
        })
      : execFileSync("git", ["archive", commit], { cwd: root, maxBuffer: 2 ** 30 })
  execFileSync("tar", ["-x", "-C", checkout], { input: files })
  for (const each of readdirSync(join(checkout, "packages"))) {
    symlinkSync(join(checkout, "packages", each), join(checkout, "node_modules/@floodgate", each))
  }
  symlinkSync(checkout, join(checkout, "node_modules/floodgate"))
}
