import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import * as TestConsole from "effect/testing/TestConsole"
import * as Budget from "floodgate/Budget"
import * as Gateway from "@floodgate/gateway"
import * as Governor from "floodgate/Governor"
import * as Output from "../../src/terminal/output.ts"
import * as State from "../../src/command/state.ts"
import { services } from "../support/services.ts"

const governed = Governor.layer().pipe(Layer.provideMerge(Budget.layer()))

describe("the state of a gateway", () => {
  it.live(
    "is never written larger than it may be to be read",
    () =>
      Effect.gen(function* () {
        const fs = yield* FileSystem.FileSystem
        const path = `${yield* fs.makeTempDirectoryScoped({ prefix: "floodgate-" })}/state.json`
        const closedWith = Effect.fnUntraced(function* (name: string) {
          const scope = yield* Scope.make()
          const spent = Effect.succeed({ [name]: { total: 1, cells: [] } })
          const gateway = Gateway.Gateway.of({ url: "", reload: () => Effect.void, spent })
          yield* Scope.provide(State.around(path, Effect.succeed(gateway)), scope)
          yield* Scope.close(scope, Exit.void)
        })
        yield* closedWith("small")
        const before = yield* fs.readFileString(path)
        assert.include(before, "small")
        yield* closedWith("x".repeat(65e6))
        assert.strictEqual(yield* fs.readFileString(path), before)
        const said = (yield* TestConsole.errorLines).join("\n")
        assert.match(said, /state\.json was not replaced: it would have 65 MB, and at most 64 MB are read/)
        assert.isDefined((yield* State.read(path))?.spent["small"])
      }).pipe(Effect.provide(governed), Effect.provide(services()), Effect.scoped),
    { tags: "full" }
  )

  it.live("can be read by its owner only, also after an earlier version that all could read", () =>
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const path = `${yield* fs.makeTempDirectoryScoped({ prefix: "floodgate-" })}/state.json`
      const gateway = Gateway.Gateway.of({ url: "", reload: () => Effect.void, spent: Effect.succeed({}) })
      const saved = Effect.scoped(State.around(path, Effect.succeed(gateway)))
      yield* saved
      assert.strictEqual((yield* fs.stat(path)).mode & 0o777, 0o600)
      yield* fs.chmod(path, 0o644)
      yield* saved
      assert.strictEqual((yield* fs.stat(path)).mode & 0o777, 0o600)
    }).pipe(Effect.provide(governed), Effect.provide(services()), Effect.scoped)
  )

  it.live("in an empty file is an error, and not a first start", () =>
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const folder = yield* fs.makeTempDirectoryScoped({ prefix: "floodgate-" })
      assert.isUndefined(yield* State.read(`${folder}/missing.json`))
      yield* fs.writeFileString(`${folder}/state.json`, "")
      const { message } = yield* Effect.flip(State.read(`${folder}/state.json`))
      assert.match(message, /state\.json is empty, so the spending of caps is unknown; restore it, or remove it/)
      assert.deepStrictEqual(yield* fs.readDirectory(folder), ["state.json"])
    }).pipe(Effect.provide(services()), Effect.scoped)
  )

  it.live("is on the disk before it replaces the earlier one", () =>
    Effect.gen(function* () {
      const real = yield* FileSystem.FileSystem
      const folder = yield* real.makeTempDirectoryScoped({ prefix: "floodgate-" })
      const path = `${folder}/state.json`
      yield* real.writeFileString(path, "earlier")
      const done: Array<string> = []
      const fs: FileSystem.FileSystem = {
        ...real,
        open: (at, options) =>
          Effect.map(real.open(at, options), (file) => {
            const what = at === folder ? "folder" : "file"
            const then = <A, E>(effect: Effect.Effect<A, E>, does: string) =>
              Effect.tap(effect, () => Effect.sync(() => done.push(`${does} ${what}`)))
            return Object.create(file, {
              writeAll: { value: (bytes: Uint8Array) => then(file.writeAll(bytes), "wrote") },
              sync: { value: then(file.sync, "synced") }
            }) as FileSystem.File
          }),
        rename: (from, to) =>
          Effect.gen(function* () {
            assert.strictEqual(yield* real.readFileString(path), "earlier")
            done.push("renamed")
            yield* real.rename(from, to)
          })
      }
      yield* Output.replaceOwn(path, "later", "--state").pipe(Effect.provideService(FileSystem.FileSystem, fs))
      assert.strictEqual(yield* real.readFileString(path), "later")
      assert.deepStrictEqual(done, ["wrote file", "synced file", "renamed", "synced folder"])
    }).pipe(Effect.provide(services()), Effect.scoped)
  )

  it.live("in an invalid file is left unchanged, with an error in one line", () =>
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const path = `${yield* fs.makeTempDirectoryScoped({ prefix: "floodgate-" })}/state.json`
      for (const text of ["no JSON", "{}", `{"version":1,"spent":{"a":{"total":"x"}}}`]) {
        yield* fs.writeFileString(path, text)
        const { message } = yield* Effect.flip(State.read(path))
        assert.match(
          message,
          /state\.json is not the state of a gateway \([^\n\uFFFD]+\); move it away to start without it$/
        )
        assert.strictEqual(yield* fs.readFileString(path), text)
      }
    }).pipe(Effect.provide(services()), Effect.scoped)
  )
})
