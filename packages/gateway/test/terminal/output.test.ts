import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FileSystem from "effect/FileSystem"
import * as PlatformError from "effect/PlatformError"
import * as TestConsole from "effect/testing/TestConsole"
import { join } from "node:path"
import * as Output from "../../src/terminal/output.ts"

const notThere = PlatformError.systemError({ _tag: "NotFound", module: "FileSystem", method: "makeDirectory" })

type Step = Effect.Effect<unknown, unknown>

/**
 * A file system that replaces the step with this number. It also tells whether that step was reached, and whether the file had its name
 * by then.
 */
const withStep = (fs: FileSystem.FileSystem, number: number, instead: (called: Step) => Step) => {
  let taken = 0
  let renamedAt = Infinity
  const step = (name: string, called: Step) =>
    Effect.suspend(() => {
      if (name === "rename") renamedAt = taken
      return taken++ === number ? instead(called) : called
    })
  const entries = Object.entries(fs).map(([name, value]) => [
    name,
    typeof value === "function" ? (...args: ReadonlyArray<unknown>) => step(name, value(...args) as Step) : value
  ])
  return {
    fileSystem: Object.fromEntries(entries) as FileSystem.FileSystem,
    cameSoFar: () => taken > number,
    wasInPlace: () => renamedAt < number
  }
}

const ways = {
  claims: (path: string) => Output.claim(path, "--report"),
  writes: (path: string) => Output.write(path, "one", "--report")
}

describe("a command that writes into a new folder while another one does", () => {
  for (const [does, way] of Object.entries(ways)) {
    for (const then of ["goes on", "is stopped"]) {
      for (const name of ["same.html", "other.html"]) {
        it.effect(`${does} same.html and ${then}: it is in nobody's way, nor is who writes ${name} in its own`, () =>
          Effect.gen(function* () {
            const fs = yield* FileSystem.FileSystem
            const at = yield* fs.makeTempDirectoryScoped({ prefix: "floodgate-" })
            // The other writer does all of its work before one step of this one.
            for (let number = 0, more = true; more; number++) {
              const folder = join(at, String(number), "new")
              const other = yield* Effect.cached(Effect.exit(Output.write(join(folder, name), "two", "--report")))
              const { cameSoFar, fileSystem, wasInPlace } = withStep(fs, number, (called) =>
                Effect.andThen(
                  Effect.provide(other, [NodeServices.layer, TestConsole.layer]),
                  then === "goes on" ? called : Effect.interrupt
                )
              )
              const exit = yield* Effect.exit(
                Effect.provideService(way(join(folder, "same.html")), FileSystem.FileSystem, fileSystem)
              )
              more = cameSoFar()
              if (!more) continue
              assert.strictEqual(Exit.isSuccess(exit), then === "goes on", `${number}`)
              assert.deepStrictEqual(yield* other, Exit.void, `${number}`)
              const wrote = does === "writes" && (then === "goes on" || wasInPlace())
              const files = [...new Set(wrote ? [name, "same.html"] : [name])].map((file) => `${number}/new/${file}`)
              const left = yield* fs.readDirectory(at, { recursive: true })
              assert.deepStrictEqual(
                left.filter((path) => path.startsWith(`${number}/new/`) || /\.floodgate/.test(path)).sort(),
                files.sort(),
                `${number}`
              )
              const text = yield* fs.readFileString(join(folder, name))
              const isOwn = wrote && name === "same.html" && !wasInPlace()
              assert.strictEqual(text, isOwn ? "one" : "two", `${number}`)
            }
          }).pipe(Effect.scoped, Effect.provide([NodeServices.layer, TestConsole.layer]))
        )
      }
    }
  }
})

describe("a file on a drive that is not there", () => {
  for (const [does, way] of Object.entries(ways)) {
    // Regression: the search for an existing parent folder never ended.
    it.effect(`is refused when a command ${does} it`, () =>
      Effect.gen(function* () {
        const error = yield* Effect.flip(way("/none/report.html"))
        assert.match(error.message, /^cannot write \/none\/report.html: .*; choose another --report$/)
      }).pipe(
        Effect.provide(
          FileSystem.layerNoop({
            makeDirectory: () => Effect.fail(notThere),
            makeTempDirectoryScoped: () => Effect.fail(notThere)
          })
        ),
        Effect.provide(NodeServices.layer)
      )
    )
  }
})
