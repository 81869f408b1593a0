import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as FileSystem from "effect/FileSystem"
import * as TestConsole from "effect/testing/TestConsole"
import { ProviderServer } from "floodgate/testing/server"
import { join } from "node:path"
import { floodgate } from "../support/cli.ts"
import { services } from "../../../gateway/test/support/services.ts"

// Dollars in the output of commands, and the end of a run at its cap.

const project = Effect.gen(function* () {
  const fs = yield* FileSystem.FileSystem
  const at = yield* fs.makeTempDirectoryScoped({ prefix: "floodgate-" })
  for (const name of ["a", "b", "c"]) {
    yield* fs.writeFileString(join(at, `${name}.md`), `The file ${name} says when the gate opens. `.repeat(40))
  }
  return { docs: at, out: join(at, "out") }
})

const dayMillis = 86_400_000

/** A clock that runs from noon, UTC, some days from now, so that no midnight passes during a test. */
const noonOf = (days: number) =>
  Effect.map(Clock.Clock, (clock): Clock.Clock => {
    const now = clock.currentTimeMillisUnsafe()
    const millis = (Math.floor(now / dayMillis) + days + 0.5) * dayMillis - now
    const nanos = BigInt(millis) * 1_000_000n
    return {
      currentTimeMillisUnsafe: () => clock.currentTimeMillisUnsafe() + millis,
      currentTimeMillis: Effect.map(clock.currentTimeMillis, (at) => at + millis),
      currentTimeNanosUnsafe: () => clock.currentTimeNanosUnsafe() + nanos,
      currentTimeNanos: Effect.map(clock.currentTimeNanos, (at) => at + nanos),
      monotonicTimeNanosUnsafe: () => clock.monotonicTimeNanosUnsafe(),
      monotonicTimeNanos: clock.monotonicTimeNanos,
      sleep: (duration) => clock.sleep(duration)
    }
  })

describe("dollars of the command", () => {
  it.effect("forecast says what each model costs, and which tier may not spend so much in a month", () =>
    Effect.gen(function* () {
      const calls = ["--agents", "10", "--calls", "10", "--first-tokens", "100000", "--tokens", "100000"]
      const models = ["--model", "claude-sonnet-5-5", "--model", "no-such-model"]
      const all = ["forecast", ...calls, "--output-tokens", "10000", ...models]
      const { out } = yield* floodgate(...all)
      // 9 million of input, one of output.
      assert.match(out, /^claude-sonnet-5-5 +\$28\.00$/m)
      assert.match(out, /^no-such-model +no price known$/m)
      const { costs, forecasts } = JSON.parse((yield* floodgate(...all, "--json")).out)
      assert.deepStrictEqual(costs, [
        { model: "claude-sonnet-5-5", dollars: 28, asOf: "2026-10-24" },
        { model: "no-such-model", dollars: null, asOf: null }
      ])
      assert.deepStrictEqual(
        forecasts.map(({ monthlyDollars }: { readonly monthlyDollars: number }) => monthlyDollars),
        [500, 1_000, 200_000]
      )
      const dear = yield* floodgate("forecast", "--agents", "200", ...calls.slice(2), "--model", "claude-opus-5-5")
      assert.match(dear.out, /^More than the \$500\.00 that the tier Start may spend in a month: claude-/m)
    }).pipe(Effect.provide(services()))
  )

  it.effect("--dry-run says what a run costs at most", () =>
    Effect.gen(function* () {
      const { docs, out } = yield* project
      const dry = ["run", docs, "--prompt", "x", "--out", out, "--max-tokens", "1000", "--dry-run"]
      const plan = JSON.parse((yield* floodgate(...dry, "--json")).out)
      assert.closeTo(plan.dollars, (2 * plan.inputTokens + 10 * plan.outputTokens) / 1e6, 1e-6)
      const bounded = yield* floodgate(...dry, "--max-usd", "0.05")
      assert.match(
        bounded.out,
        /^At most about \$0\.\d+, by the prices of 2026-10-24, and no more than --max-usd 0\.05$/m
      )
      const daily = yield* floodgate(...dry, "--max-usd-per-day", String(plan.dollars / 2.5))
      assert.match(daily.out, /; with --max-usd-per-day 0\.\d+ it reaches the cap of a day up to 2 times$/m)
      const monthly = yield* floodgate(...dry, "--max-usd-per-month", String(plan.dollars / 1.5), "--month-from", "15")
      assert.match(monthly.out, /; with --max-usd-per-month 0\.\d+ it reaches the cap of a month up to 1 time$/m)
      const wrong = yield* floodgate(...dry, "--max-usd-per-month", "1", "--month-from", "15 in Atlantis")
      assert.match(
        wrong.err,
        /--month-from: expected a day from 1 to 31 such as "15" or "15 in Europe\/Berlin", got "15 in Atlantis"/
      )
      const unknown = yield* floodgate(...dry, "--model", "no-such-model")
      assert.match(unknown.out, /^The cost is unknown: "no-such-model" has no price$/m)
    }).pipe(Effect.scoped, Effect.provide(services()))
  )

  it.live("run stops before the call that may exceed --max-usd, says so, and reports the cost", () =>
    Effect.gen(function* () {
      const { docs, out } = yield* project
      const provider = yield* ProviderServer.make({
        latency: { baseMillis: 5, perInputTokenMillis: 0, perOutputTokenMillis: 0 }
      })
      const go = (...flags: ReadonlyArray<string>) =>
        floodgate("run", docs, "--prompt", "x", "--out", out, "--max-tokens", "1000", ...flags).pipe(
          Effect.provide(services({ env: { ANTHROPIC_API_KEY: "k", ANTHROPIC_BASE_URL: provider.url } }))
        )
      const capped = yield* go("--max-usd", "0.025", "--json")
      assert.strictEqual(capped.code, 1)
      const done = capped.out
        .split("\n")
        .map((line) => JSON.parse(line))
        .find(({ event }) => event === "done")
      const { inputTokens, outputTokens } = yield* provider.stats
      assert.closeTo(done.dollars, (2 * inputTokens + 10 * outputTokens) / 1e6, 1e-9)
      assert.isAtMost(done.dollars, 0.025)
      assert.isAbove(done.calls, 0)
      assert.match(done.missing[0].reason, /only \$0\.\d+ is left of the cap of \$0\.025 for this run \(--max-usd\)/)
      // The same command resumes, with a new cap.
      const again = yield* go("--max-usd", "5")
      assert.strictEqual(again.code, 0, again.err)
      assert.match(again.out, /^Done after .* tokens, \$0\.\d+$/m)
      const refused = yield* go("--max-usd", "1", "--model", "no-such-model")
      assert.strictEqual(refused.code, 2)
      assert.match(refused.err, /--max-usd: "no-such-model" has no known price/)
    }).pipe(Effect.scoped, Effect.provide(services()))
  )

  it.live("--max-usd-per-day pauses until midnight, loses nothing on Ctrl-C, counts what was spent, and goes on", () =>
    Effect.gen(function* () {
      const { docs, out } = yield* project
      const provider = yield* ProviderServer.make({
        latency: { baseMillis: 5, perInputTokenMillis: 0, perOutputTokenMillis: 0 }
      })
      const env = { ANTHROPIC_API_KEY: "k", ANTHROPIC_BASE_URL: provider.url }
      const capped = ["--max-tokens", "1000", "--max-usd-per-day", "0.025"]
      const go = (clock: Clock.Clock, ...flags: ReadonlyArray<string>) =>
        floodgate("run", docs, "--prompt", "x", "--out", out, ...capped, ...flags).pipe(
          Effect.provideService(Clock.Clock, clock)
        )
      const [today, tomorrow] = [yield* noonOf(0), yield* noonOf(1)]
      const midnight = new Date(today.currentTimeMillisUnsafe() + 43_200_000).toISOString().slice(0, 10)

      const { paused, stopped } = yield* Effect.gen(function* () {
        const running = yield* Effect.forkChild(go(today, "--wait-for-reset"))
        const lines = Effect.map(TestConsole.logLines, (all) => all.map(String))
        let paused: string | undefined
        while (paused === undefined && running.pollUnsafe() === undefined) {
          yield* Effect.sleep("10 millis")
          paused = (yield* lines).find((line) => line.includes("Paused"))
        }
        yield* Fiber.interrupt(running)
        return { paused, stopped: (yield* TestConsole.errorLines).map(String).join("\n") }
      }).pipe(Effect.provide(services({ env })))
      assert.include(paused ?? stopped, `Paused until ${midnight}T00:00:00.000Z: The call may cost`)
      assert.match(stopped, /^Stopped\. Every answer is kept in /m)
      const first = yield* provider.stats
      assert.isAbove(first.accepted, 0)

      // Another run on that day has only what the first one left.
      const again = yield* go(today).pipe(Effect.provide(services({ env })))
      assert.strictEqual(again.code, 1)
      assert.match(
        again.err,
        /left of the cap of \$0\.025 a day for this day \(--max-usd-per-day\) \(\$0\.\d+ spent, \$0\.\d+ reserved by running calls\): wait until /
      )
      assert.match(again.err, /Run the same command again to make/)
      const second = yield* provider.stats
      const fs = yield* FileSystem.FileSystem
      const results = (yield* fs.readFileString(join(out, "results.jsonl"))).trim().split("\n")
      const dollars = results.reduce((sum, line) => {
        const { inputTokens, outputTokens } = JSON.parse(line).usage
        return sum + (2 * inputTokens + 10 * outputTokens) / 1e6
      }, 0)
      assert.isAtMost(dollars, 0.025)
      assert.isAbove(dollars, 0)

      const next = yield* go(tomorrow).pipe(Effect.provide(services({ env })))
      const third = yield* provider.stats
      assert.isAbove(third.accepted, second.accepted, next.err)
    }).pipe(Effect.scoped, Effect.provide(services()))
  )

  it.live("--max-usd-per-day counts the calls that Ctrl-C cuts off at the most that they can have cost", () =>
    Effect.gen(function* () {
      const { docs, out } = yield* project
      const provider = yield* ProviderServer.make({ faults: [{ kind: "stall" }] })
      const env = { ANTHROPIC_API_KEY: "k", ANTHROPIC_BASE_URL: provider.url }
      const go = (cap: string, ...flags: ReadonlyArray<string>) =>
        floodgate(
          "run",
          docs,
          "--prompt",
          "x",
          "--out",
          out,
          "--max-tokens",
          "1000",
          "--max-usd-per-day",
          cap,
          ...flags
        )
      const clock = yield* noonOf(0)
      const running = yield* Effect.forkChild(
        go("1").pipe(Effect.provideService(Clock.Clock, clock), Effect.provide(services({ env })))
      )
      while ((yield* provider.stats).inFlight < 3 && running.pollUnsafe() === undefined)
        yield* Effect.sleep("10 millis")
      yield* Fiber.interrupt(running)
      // Each of the three may have cost two cents.
      const again = yield* go("0.06", "--json").pipe(
        Effect.provideService(Clock.Clock, clock),
        Effect.provide(services({ env }))
      )
      assert.strictEqual(again.code, 1)
      assert.match(again.out, /only \$0\.00 is left of the cap of \$0\.06 a day for this day/)
      assert.strictEqual((yield* provider.stats).requests, 3)
    }).pipe(Effect.scoped, Effect.provide(services()))
  )
})
