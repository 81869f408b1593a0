import { assert, describe, it } from "vitest"
import * as Floodgate from "floodgate/promise"
import { getEventListeners } from "node:events"

// However many calls share a signal, it has one listener: Node walks all listeners of a signal to add or to remove one.

const calls = 500

const body = JSON.stringify({ model: "m", messages: [] })
const init = (signal: AbortSignal, more: object = {}) => ({ method: "POST", body, signal, ...more })
const url = "https://api.openai.com/v1/chat/completions"
const event = `data: ${JSON.stringify({ choices: [{ index: 0, delta: { content: "Hi" } }] })}\n\n`

/** A provider that answers with the beginning of a stream, or never. */
const provider = (streams: boolean): typeof fetch =>
  streams
    ? async () => {
        const stream = new ReadableStream({
          start: (controller) => controller.enqueue(new TextEncoder().encode(event))
        })
        return new Response(stream, { headers: { "content-type": "text/event-stream" } })
      }
    : (_, given) =>
        new Promise((_, reject) => given!.signal!.addEventListener("abort", () => reject(given!.signal!.reason)))

const listeners = (signal: AbortSignal): number => getEventListeners(signal, "abort").length

const reasons = async (running: ReadonlyArray<Promise<unknown>>): Promise<Set<unknown>> => {
  const ended = await Promise.allSettled(running)
  return new Set(ended.map((end) => (end.status === "rejected" ? end.reason : "answered")))
}

describe("a signal that calls share", () => {
  const ways: Readonly<Record<string, (floodgate: Floodgate.Floodgate, signal: AbortSignal) => Promise<unknown>>> = {
    run: (floodgate, signal) => floodgate.run({ model: "m", bytes: 10, signal }, () => new Promise(() => {})),
    fetch: (floodgate, signal) => floodgate.fetch(url, init(signal)),
    "a stream of fetch": async (floodgate, signal) => {
      const response = await floodgate.fetch(
        url,
        init(signal, { body: JSON.stringify({ model: "m", messages: [], stream: true }) })
      )
      return response.text()
    }
  }
  for (const [name, way] of Object.entries(ways)) {
    it(`has one listener for ${calls} calls, which ends all of them: ${name}`, async () => {
      const floodgate = await Floodgate.create({ fetch: provider(name.includes("stream")) } as never)
      const controller = new AbortController()
      const { signal } = controller
      const running = Array.from({ length: calls }, () => way(floodgate, signal))
      const ended = reasons(running)
      await new Promise((resolve) => setImmediate(resolve))
      assert.strictEqual(listeners(signal), 1)
      const reason = new Error("enough")
      controller.abort(reason)
      assert.deepStrictEqual(await ended, new Set([reason]))
      assert.strictEqual(listeners(signal), 0)
      await floodgate.dispose()
    })
  }

  it("loses its listener with the last call, and gets it again with the next", async () => {
    const floodgate = await Floodgate.create()
    const controller = new AbortController()
    const { signal } = controller
    const held = Promise.withResolvers<void>()
    const call = () => floodgate.run({ model: "m", bytes: 10, signal }, () => held.promise)
    const running = [call(), call()]
    await new Promise((resolve) => setImmediate(resolve))
    assert.strictEqual(listeners(signal), 1)
    held.resolve()
    await Promise.all(running)
    assert.strictEqual(listeners(signal), 0)
    const next = floodgate.run({ model: "m", bytes: 10, signal }, () => new Promise(() => {}))
    const ended = reasons([next])
    await new Promise((resolve) => setImmediate(resolve))
    controller.abort("late")
    assert.deepStrictEqual(await ended, new Set(["late"]))
    await floodgate.dispose()
  })
})
