/** The line that a terminal shows while calls wait, beside what the program itself writes. */
import { assert, describe, it } from "@effect/vitest"
import { EventEmitter } from "node:events"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as TestClock from "effect/testing/TestClock"
import * as Budget from "floodgate/Budget"
import { show, type Stdio } from "../../../src/adapters/promise/liveLine.ts"

/** A terminal that keeps what it shows: its lines, of which the last is not ended. */
const terminalOf = (columns = 80) => {
  const lines = [""]
  const write = (chunk: string | Uint8Array): boolean => {
    const text = typeof chunk === "string" ? chunk : new TextDecoder().decode(chunk)
    text.split("\r\u001b[2K").forEach((part, index) => {
      if (index > 0) lines[lines.length - 1] = ""
      const [first = "", ...others] = part.split("\n")
      lines[lines.length - 1] += first
      lines.push(...others)
    })
    return true
  }
  const stream: Stdio = { isTTY: true, columns, write }
  return { lines, stream, say: (chunk: string | Uint8Array) => stream.write(chunk as never) }
}

/** A budget whose calls nobody else counts. */
const live = Budget.layer({ limits: { inputTokens: { perSecond: 100, burst: 1_000 } } }).pipe(
  Layer.provideMerge(Layer.succeed(Metric.MetricRegistry, new Map()))
)

/** 40 calls that wait, one a second. */
const waiting = Effect.gen(function* () {
  yield* Budget.consume(1_000)
  const calls = yield* Effect.forkChild(
    Effect.forEach(Array.from({ length: 40 }), () => Budget.consume(100), { concurrency: "unbounded", discard: true })
  )
  yield* TestClock.adjust("1 millis")
  return calls
})

const shown = Effect.fnUntraced(function* (terminal: Stdio, others: ReadonlyArray<Stdio> = [], ending?: EventEmitter) {
  const budget = yield* Budget.TokenBudget
  const fiber = yield* Effect.forkChild(show(budget, terminal, others, ending))
  yield* TestClock.adjust("1 millis")
  return fiber
})

describe("the live line", () => {
  it.effect("says how many calls wait, for what and how long, and is gone when nothing waits", () =>
    Effect.gen(function* () {
      const { lines, stream } = terminalOf()
      yield* shown(stream)
      const calls = yield* waiting
      assert.deepStrictEqual(lines, [""], "not for a wait that has just begun")
      yield* TestClock.adjust("1 seconds")
      assert.match(lines.join("\n"), /^floodgate: (39|40) wait for input tokens, 0 of (39|40) done, about \d+ s left$/)
      yield* TestClock.adjust("60 seconds")
      yield* Fiber.join(calls)
      assert.deepStrictEqual(lines, [""])
    }).pipe(Effect.provide(live))
  )

  it.effect("leaves everything that the program writes, and waits for the end of its line", () =>
    Effect.gen(function* () {
      const { lines, say, stream } = terminalOf()
      yield* shown(stream)
      yield* waiting
      yield* TestClock.adjust("1 seconds")
      say("a result\n")
      assert.deepStrictEqual(lines, ["a result", ""])
      yield* TestClock.adjust("1 seconds")
      assert.match(lines[1]!, /^floodgate: /)
      say(new TextEncoder().encode("half a "))
      yield* TestClock.adjust("2 seconds")
      assert.deepStrictEqual(lines, ["a result", "half a "])
      say("line\n")
      yield* TestClock.adjust("1 seconds")
      assert.deepStrictEqual(lines.slice(0, 2), ["a result", "half a line"])
      assert.match(lines[2]!, /^floodgate: /)
    }).pipe(Effect.provide(live))
  )

  it.effect("disappears before another stream of the same terminal writes", () =>
    Effect.gen(function* () {
      const { lines, stream } = terminalOf()
      const output: Stdio = { isTTY: true, write: stream.write.bind(stream) }
      yield* shown(stream, [output])
      yield* waiting
      yield* TestClock.adjust("1 seconds")
      output.write("printed\n" as never)
      assert.deepStrictEqual(lines, ["printed", ""])
    }).pipe(Effect.provide(live))
  )

  it.effect("fits a narrow terminal", () =>
    Effect.gen(function* () {
      const { lines, stream } = terminalOf(20)
      yield* shown(stream)
      yield* waiting
      yield* TestClock.adjust("1 seconds")
      assert.strictEqual(lines[0]!.length, 19)
    }).pipe(Effect.provide(live))
  )

  it.effect("disappears before a process that ends says why, and listens to it only while it is shown", () =>
    Effect.gen(function* () {
      const { lines, stream } = terminalOf()
      const ending = new EventEmitter()
      yield* shown(stream, [], ending)
      yield* waiting
      assert.strictEqual(ending.listenerCount("exit"), 0)
      yield* TestClock.adjust("2 seconds")
      assert.strictEqual(ending.listenerCount("exit"), 1)
      assert.match(lines[0]!, /^floodgate: /)
      ending.emit("exit")
      assert.deepStrictEqual(lines, [""])
      yield* TestClock.adjust("1 seconds")
      assert.match(lines[0]!, /^floodgate: /)
      yield* TestClock.adjust("60 seconds")
      assert.strictEqual(ending.listenerCount("exit"), 0)
    }).pipe(Effect.provide(live))
  )

  it.effect("ends with its floodgate, and gives the streams back", () =>
    Effect.gen(function* () {
      const { lines, stream } = terminalOf()
      const { write } = stream
      const fiber = yield* shown(stream)
      yield* waiting
      yield* TestClock.adjust("1 seconds")
      yield* Fiber.interrupt(fiber)
      assert.deepStrictEqual(lines, [""])
      assert.strictEqual(stream.write, write)
    }).pipe(Effect.provide(live))
  )
})
