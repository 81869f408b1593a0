/** However a stream for a reader ends, it leaves nothing behind. */
import { assert, describe, it } from "@effect/vitest"
import { getEventListeners } from "node:events"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import { ConnectionFailed, ServerFailed } from "floodgate/LlmError"
import { StreamProgress, streamOf, watch } from "../../src/call/stream.ts"

setFlagsFromString("--expose-gc")
const collect = runInNewContext("gc") as () => void

type Source<Piece> = Parameters<typeof streamOf<Piece>>[0]

/** A source whose pieces the test gives, and which records how it was cancelled. */
const byHand = () => {
  const ends: Array<unknown> = []
  const given: Array<Promise<string | undefined>> = []
  let waiting: ((piece: Promise<string | undefined>) => void) | undefined
  const next = (piece: Promise<string | undefined>): void => {
    if (waiting === undefined) given.push(piece)
    else waiting(piece)
    waiting = undefined
  }
  const source: Source<string> = {
    read: () => given.shift() ?? new Promise((resolve) => (waiting = resolve)),
    cancel: (reason) => void ends.push(reason)
  }
  return {
    source,
    ends,
    give: (piece: string | undefined) => next(Promise.resolve(piece)),
    fail: (error: Error) => next(Promise.reject(error))
  }
}

const rejected = (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(
    () => assert.fail("it did not reject"),
    (error: unknown) => error
  )

const listeners = (...signals: ReadonlyArray<AbortSignal>): number =>
  signals.reduce((sum, signal) => sum + getEventListeners(signal, "abort").length, 0)

/** A running stream, and the signals that end it. */
const begun = async () => {
  const hand = byHand()
  const controllers = [new AbortController(), new AbortController()] as const
  const signals = controllers.map(({ signal }) => signal)
  const reader = streamOf(hand.source, undefined, ...signals).getReader()
  const first = reader.read()
  hand.give("one")
  assert.deepStrictEqual(await first, { done: false, value: "one" })
  assert.strictEqual(listeners(...signals), 2)
  return { ...hand, controllers, signals, reader }
}

describe("streamOf", () => {
  it("leaves no listener behind when the stream ends", async () => {
    const { ends, give, reader, signals } = await begun()
    const last = reader.read()
    give(undefined)
    assert.isTrue((await last).done)
    assert.strictEqual(listeners(...signals), 0)
    assert.lengthOf(ends, 0)
  })

  it("leaves no listener behind when it breaks", async () => {
    const { fail, reader, signals } = await begun()
    const broken = rejected(reader.read())
    const error = new Error("reset")
    fail(error)
    assert.strictEqual(await broken, error)
    assert.strictEqual(listeners(...signals), 0)
  })

  it("leaves no listener behind when its reader leaves it", async () => {
    const { ends, reader, signals } = await begun()
    await reader.cancel("enough")
    assert.strictEqual(listeners(...signals), 0)
    assert.deepStrictEqual(ends, ["enough"])
  })

  for (const which of [0, 1] as const) {
    it(`ends by either signal, and leaves no listener on the other: ${which}`, async () => {
      const { controllers, ends, reader, signals } = await begun()
      const reading = rejected(reader.read())
      const reason = new Error("closed")
      controllers[which].abort(reason)
      // The source gives no more pieces, which must not matter.
      assert.strictEqual(await reading, reason)
      assert.strictEqual(listeners(...signals), 0)
      assert.include(ends, reason)
    })
  }

  it("does not begin if a signal has aborted", async () => {
    const { ends, source } = byHand()
    const reason = new Error("closed")
    const other = new AbortController()
    const reader = streamOf(source, other.signal, AbortSignal.abort(reason)).getReader()
    assert.deepStrictEqual(ends, [reason])
    assert.strictEqual(await rejected(reader.read()), reason)
    assert.strictEqual(listeners(other.signal), 0)
  })

  it("drops a piece that arrives with the abort", async () => {
    const { controllers, give, reader } = await begun()
    const reading = rejected(reader.read())
    give("two")
    controllers[0].abort("left")
    assert.strictEqual(await reading, "left")
  })

  it("ends its call once nobody can read it", async () => {
    const { ends, source } = byHand()
    ;(() => void streamOf(source))()
    while (ends.length === 0) {
      collect()
      await new Promise((resolve) => setImmediate(resolve))
    }
    assert.deepStrictEqual(ends, ["nobody reads the body"])
  })
})

const cut = new ConnectionFailed({ sent: true })
const down = new ServerFailed({ status: 500 })
const failing = () => down
/** An answer of which nothing is known yet. */
const empty = new StreamProgress(() => {}).answer
const usage = { inputTokens: 5, outputTokens: 3 }

describe("the progress of a stream", () => {
  const begun = { ...empty, id: "r1" }
  const whole = { ...begun, started: true, complete: true, counts: usage }
  /** The progress after some answers. */
  const after = (goesOn: boolean, ...answers: ReadonlyArray<typeof empty>) => {
    const progress = new StreamProgress(() => {}, goesOn)
    for (const answer of answers) progress.observe(answer, failing)
    return progress
  }

  it("is past a retry with the first content, or with the id of an answer that goes on without its reader", () => {
    assert.deepStrictEqual(
      [after(false, begun), after(true, empty), after(true, begun), after(false, { ...begun, started: true })].map(
        ({ isUndecided }) => isUndecided
      ),
      [true, true, false, false]
    )
  })

  it("ends as its answer did, and is abandoned only where that is open and nobody writes on", () => {
    const leftOf = ({ left }: StreamProgress) => (left._tag === "Complete" ? left.actual?.outputTokens : left._tag)
    for (const goesOn of [false, true]) {
      assert.strictEqual(leftOf(after(goesOn, begun, whole)), 3)
      assert.strictEqual(leftOf(after(goesOn, begun, { ...begun, error: { type: "overloaded" } })), "Failed")
      assert.strictEqual(leftOf(after(goesOn, empty)), "Abandoned")
    }
    assert.strictEqual(leftOf(after(false, begun)), "Abandoned")
    const goingOn = after(true, begun)
    assert.deepStrictEqual([goingOn.left._tag, leftOf(goingOn)], ["Complete", undefined])
  })

  it("keeps its first failure, and ends its reader's stream by what was thrown", () => {
    for (const [progress, reason] of [
      [after(false, begun), cut],
      [after(false, { ...begun, error: "overloaded" }), down]
    ] as const) {
      const thrown = new Error("reset")
      progress.broke(thrown, cut)
      assert.deepStrictEqual(progress.conclusion, { _tag: "Failed", reason })
      assert.throws(() => progress.finish(), thrown)
    }
  })

  it("is not tried again if its content came together with its failure", async () => {
    for (const started of [true, false]) {
      const progress = after(false)
      const { begin } = watch<string>(progress, async (ready) => {
        ready.push("one")
        progress.observe({ ...begun, started, error: "overloaded" }, failing)
      })
      assert.strictEqual(await begin(), started ? undefined : down)
    }
  })

  it("tells its end once, whatever its reader does afterwards", async () => {
    for (const order of [
      ["read", "cancel", "read"],
      ["cancel", "cancel"]
    ] as const) {
      const progress = after(false, begun, whole)
      const ends: Array<string> = []
      const source = watch<string>(progress, async () => progress.ended(() => cut)).give(({ _tag }) => ends.push(_tag))
      for (const step of order) await source[step]()
      assert.deepStrictEqual(ends, ["Complete"])
    }
  })
})
