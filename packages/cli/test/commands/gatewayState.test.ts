import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import * as TestConsole from "effect/testing/TestConsole"
import * as Budget from "floodgate/Budget"
import * as Gateway from "floodgate/gateway"
import * as Governor from "floodgate/Governor"
import * as State from "../../src/commands/gateway/state.ts"
import { services } from "../support/services.ts"

const governed = Governor.layer().pipe(Layer.provideMerge(Budget.layer()))

describe("the state of a gateway", () => {
  it.live("is never written larger than it is read", () =>
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
    }).pipe(Effect.provide(governed), Effect.provide(services()), Effect.scoped)
  )

  it.live("is left alone where it is none, with what is wrong in one line", () =>
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const path = `${yield* fs.makeTempDirectoryScoped({ prefix: "floodgate-" })}/state.json`
      for (const text of ["no JSON", "{}", `{"version":1,"spent":{"a":{"total":"x"}}}`]) {
        yield* fs.writeFileString(path, text)
        const { message } = yield* Effect.flip(State.read(path))
        assert.match(
          message,
          /state\.json is no state of a gateway \([^\n\uFFFD]+\); move it away to start without it$/
        )
        assert.strictEqual(yield* fs.readFileString(path), text)
      }
    }).pipe(Effect.provide(services()), Effect.scoped)
  )
})
