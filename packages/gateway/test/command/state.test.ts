import { assert, describe, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import * as TestClock from "effect/testing/TestClock"
import * as TestConsole from "effect/testing/TestConsole"
import * as Budget from "floodgate/Budget"
import * as Gateway from "@floodgate/gateway"
import * as Governor from "floodgate/Governor"
import * as Spending from "floodgate/Spending"
import { readFileSync } from "node:fs"
import * as Output from "../../src/terminal/output.ts"
import * as State from "../../src/command/state.ts"
import { services } from "../support/services.ts"

const added = Effect.succeed({ keys: [], rules: [] })
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
          const gateway = Gateway.Gateway.of({ url: "", reload: () => Effect.void, spent, added })
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
      const gateway = Gateway.Gateway.of({ url: "", reload: () => Effect.void, spent: Effect.succeed({}), added })
      const saved = Effect.scoped(State.around(path, Effect.succeed(gateway)))
      yield* saved
      assert.strictEqual((yield* fs.stat(path)).mode & 0o777, 0o600)
      yield* fs.chmod(path, 0o644)
      yield* saved
      assert.strictEqual((yield* fs.stat(path)).mode & 0o777, 0o600)
    }).pipe(Effect.provide(governed), Effect.provide(services()), Effect.scoped)
  )

  it.effect(
    "is read as 0.4 wrote it: limits, estimates, the windows of a subscription, and what was spent of each cap",
    () =>
      Effect.gen(function* () {
        const fs = yield* FileSystem.FileSystem
        const text = readFileSync(new URL("state-0.4.json", import.meta.url), "utf8")
        const path = `${yield* fs.makeTempDirectoryScoped({ prefix: "floodgate-" })}/state.json`
        yield* fs.writeFileString(path, text)
        const { calls, limits, spent } = (yield* State.read(path))!
        assert.deepStrictEqual({ format: 1, limits, calls, spent }, JSON.parse(text))
        yield* TestClock.setTime(limits.at)
        const context = yield* Layer.build(
          Governor.layer({ learned: calls }).pipe(Layer.provideMerge(Budget.layer({ learned: limits })))
        )
        assert.deepStrictEqual(yield* Context.get(context, Budget.TokenBudget).learned, limits)
        const { profiles, windows } = yield* Context.get(context, Governor.Governor).learned
        assert.deepStrictEqual(windows, calls.windows)
        assert.strictEqual(profiles.length, calls.profiles.length)
        for (const each of calls.profiles) {
          assert.deepInclude(
            profiles.find(({ kind, pool }) => pool === each.pool && kind === each.kind)!,
            each
          )
        }
        const left = yield* Effect.forEach(Object.entries(spent), ([name, kept]) =>
          Effect.flatMap(Spending.open(name, { dollars: 1 }, { kept }), (purse) => purse.status)
        )
        const dollars = Object.values(spent).map(({ cells }) => cells[0]!.amount / 1e9)
        assert.isAbove(Math.min(...dollars), 0)
        assert.deepStrictEqual(
          left.map((status) => status.spent),
          dollars
        )
      }).pipe(Effect.scoped, Effect.provide(services()))
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
