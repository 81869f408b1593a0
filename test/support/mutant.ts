/**
 * Copies of the sources in which one thing is broken, to show that a test notices it.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { pathToFileURL } from "node:url"
import { root } from "./modules.ts"

export interface Mutant {
  /** What is broken in it. */
  readonly without: string
  /** The file in `src`, what it has once, and what stands there instead. */
  readonly file: string
  readonly from: string
  readonly to: string
}

/** Imports a module of a copy, by its name in `src`. */
export type Import = <A>(module: string) => Effect.Effect<A>

/** A copy, for as long as a scope lasts: what was imported stays. */
export const copy = ({ file, from, to }: Mutant): Effect.Effect<Import, never, Scope.Scope> =>
  Effect.gen(function* () {
    const folder = yield* Effect.acquireRelease(
      Effect.sync(() => mkdtempSync(join(tmpdir(), "floodgate-mutant-"))),
      (folder) => Effect.sync(() => rmSync(folder, { recursive: true }))
    )
    cpSync(join(root, "src"), join(folder, "src"), { recursive: true })
    symlinkSync(join(root, "node_modules"), join(folder, "node_modules"))
    const path = join(folder, "src", file)
    const [before, after, ...more] = readFileSync(path, "utf8").split(from)
    if (before === undefined || after === undefined || more.length > 0) {
      return yield* Effect.die(new Error(`${file} should have this once: ${from}`))
    }
    writeFileSync(path, before + to + after)
    return (module) => Effect.promise(() => import(pathToFileURL(join(folder, "src", module)).href))
  })

/** Imports a module of a copy. */
export const load = <A>(mutant: Mutant, module: string): Effect.Effect<A> =>
  Effect.scoped(Effect.flatMap(copy(mutant), (take) => take<A>(module)))
