/** However a stream for a reader ends, it leaves nothing behind. */
import { assert, describe, it } from "@effect/vitest"
import { getEventListeners } from "node:events"
import { streamOf } from "../../src/call/stream.ts"

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
})
