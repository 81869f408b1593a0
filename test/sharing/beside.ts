/** The code of an earlier commit, for processes that share a store with those of this one. */
import * as Effect from "effect/Effect"
import { execFileSync } from "node:child_process"
import { mkdtempSync, symlinkSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { pathToFileURL } from "node:url"
import * as World from "./world.ts"

const root = join(import.meta.dirname, "../..")

/** The commit of 0.4.0. */
export const released = "ea96e02c9793212085375721bec0b3d6e5786dce"

/** Whether the history of this clone has a commit. A shallow one lacks it; CI must not. */
export const isKnown = (commit: string): boolean => {
  try {
    execFileSync("git", ["cat-file", "-e", `${commit}^{commit}`], { cwd: root, stdio: "ignore" })
    return true
  } catch {
    return process.env.CI !== undefined
  }
}

/** A folder with the sources of a commit. */
export const sourcesOf = (commit: string): string => {
  const folder = mkdtempSync(join(tmpdir(), "floodgate-beside-"))
  const archive = execFileSync("git", ["archive", commit, "src"], { cwd: root, maxBuffer: 1e9 })
  execFileSync("tar", ["-x", "-C", folder], { input: archive })
  symlinkSync(join(root, "node_modules"), join(folder, "node_modules"))
  return folder
}

/** This code in every first process, and that of a folder in every second one; or the other way round. */
export const beside = (folder: string, isFirst = false): Promise<World.Code> =>
  Effect.runPromise(
    Effect.map(
      World.codeOf((module) => Effect.promise(() => import(pathToFileURL(join(folder, "src", module)).href))),
      (other) => (isFirst ? { ...other, beside: World.library } : { ...World.library, beside: other })
    )
  )
