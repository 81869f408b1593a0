import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as TestClock from "effect/testing/TestClock"
import * as Cli from "../../src/commands/index.ts"
import * as Provenance from "../../src/commands/provenance.ts"

const of = (...args: ReadonlyArray<string>) =>
  Effect.map(Effect.provideService(Provenance.of([["seed", "1"]]), Provenance.Arguments, args), (facts) =>
    Object.fromEntries(facts)
  )

describe("the provenance of a report", () => {
  it.effect("consists of the time, the version, the command and the facts that the command adds", () =>
    Effect.gen(function* () {
      yield* TestClock.setTime(Date.UTC(2026, 10, 26, 21, 5))
      assert.deepStrictEqual(yield* of("run", "my docs", "--prompt", "what's new?"), {
        made: "2026-11-26 21:05 UTC",
        by: `floodgate ${Cli.version}`,
        command: "floodgate run 'my docs' --prompt 'what'\\''s new?'",
        seed: "1"
      })
    })
  )

  it.effect("holds no password, no control character, and no prompt of a page", () =>
    Effect.gen(function* () {
      const { command } = yield* of("run", "--redis", "rediss://user:secret@db:6379/1", "\u001b[31m", "x".repeat(5_000))
      assert.include(command, "rediss://db:6379/1")
      assert.notInclude(command, "secret")
      assert.notInclude(command, "\u001b")
      assert.isBelow(command!.length, 400)
    })
  )
})
