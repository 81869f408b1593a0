import { assert, describe, it } from "@effect/vitest"
import * as Floodgate from "floodgate/promise"
import { call, withNext } from "./place.ts"

// Whatever is thrown, answered or streamed, the caller gets it unchanged, and the only slot is free again.

const retry = { attempts: 2, baseSeconds: 0.01 }
const url = "https://api.openai.com/v1/chat/completions"
const body = (stream: boolean) => JSON.stringify({ ...call, stream, messages: [{ role: "user", content: "Hello" }] })

const thrownBy = async (made: Promise<unknown>): Promise<unknown> =>
  made.then(
    () => assert.fail("it succeeded"),
    (thrown: unknown) => thrown
  )

/** Reads a stream to its end, however that is. */
const readAll = async (stream: ReadableStream | undefined): Promise<void> => {
  try {
    for await (const _ of stream ?? []) continue
  } catch {
    // It broke.
  }
}

const cyclic = new Error("cyclic")
cyclic.cause = cyclic

const things: Readonly<Record<string, unknown>> = {
  null: null,
  nothing: undefined,
  "a symbol": Symbol("x"),
  "a text": "a text",
  "a bigint": 5n,
  "a frozen error": Object.freeze(Object.assign(new Error("frozen"), { isRetryable: true })),
  "its own cause": cyclic
}

const trap = (): never => {
  throw new Error("a trap")
}

const parts: Readonly<Record<string, unknown>> = { ...things, "a trap": new Proxy({}, { get: trap, has: trap }) }

const open = (answer?: () => unknown): Floodgate.Floodgate =>
  Floodgate.create({ concurrency: 1, retry, account: () => "", fetch: async () => answer?.() as Response })

const modelOf = (answer: () => unknown) => {
  const asked = async () => answer() as never
  return { provider: "my", modelId: "my-model", doGenerate: asked, doStream: asked }
}

describe("an odd value", () => {
  for (const [name, thing] of Object.entries(things)) {
    it(`is rethrown unchanged: ${name}`, async () => {
      const throws = () => {
        throw thing
      }
      const floodgate = open(throws)
      const params = { prompt: [] }
      const calls = [
        floodgate.run(call, async () => throws()),
        floodgate.fetch(url, { method: "POST", body: body(false) }),
        floodgate.fetch(url, { method: "POST", body: body(true) }),
        floodgate.aiSdk.wrapGenerate({ model: modelOf(throws), params }),
        floodgate.aiSdk.wrapStream({ model: modelOf(throws), params })
      ]
      // Any of them may reject first.
      for (const thrown of await Promise.all(calls.map(thrownBy))) assert.strictEqual(thrown, thing)
      assert.strictEqual(await withNext(floodgate), 1)
    })
  }

  for (const [name, part] of Object.entries(parts)) {
    it(`ends a stream as a part of it, or as its error: ${name}`, async () => {
      const floodgate = open()
      const whole = [
        part,
        { type: "text-delta", delta: part },
        { type: "error", error: part },
        { type: "finish", usage: part }
      ]
      const streaming = () =>
        new ReadableStream({
          start: (controller) => {
            for (const each of whole) controller.enqueue(each)
            controller.close()
          }
        })
      const breaking = () => new ReadableStream({ start: (controller) => controller.error(part) })
      for (const streamOf of [streaming, breaking]) {
        const model = modelOf(() => ({ stream: streamOf() }))
        const made = floodgate.aiSdk.wrapStream({ model, params: { prompt: [] } })
        const { stream } = await made.catch(() => ({ stream: undefined }))
        await readAll(stream)
      }
      assert.strictEqual(await withNext(floodgate), 1)
    })
  }

  const json = { headers: { "content-type": "application/json" } }
  const locked = (): Response => {
    const response = new Response("x")
    response.body!.getReader()
    return response
  }
  const streaming = (chunk: unknown, type: string) =>
    new Response(ReadableStream.from([chunk as Uint8Array]), { headers: { "content-type": type } })
  const answers: Readonly<Record<string, () => unknown>> = {
    nothing: () => undefined,
    "a text": () => "x",
    "an empty object": () => ({}),
    "a body that is locked": locked,
    "no headers": () => ({ status: 200, body: null }),
    "a status that is none": () => ({ status: "x", headers: new Headers(), body: null }),
    "a body that is none": () => ({ status: 200, ok: true, headers: new Headers(json.headers), body: 5 }),
    "a body that breaks": () =>
      new Response(new ReadableStream({ start: (controller) => controller.error(null) }), json),
    "texts instead of bytes": () => streaming("text", "application/json"),
    "texts instead of the bytes of events": () => streaming("data: {}\n\n", "text/event-stream")
  }
  for (const [name, answer] of Object.entries(answers)) {
    it(`frees the slot when it is the answer: ${name}`, async () => {
      const floodgate = open(answer)
      const model = modelOf(answer)
      for (const stream of [false, true]) {
        const answered = await floodgate.fetch(url, { method: "POST", body: body(stream) }).catch(() => undefined)
        if (answered instanceof Response) await answered.text().catch(() => "")
        const made = stream
          ? floodgate.aiSdk.wrapStream({ model, params: { prompt: [] } })
          : floodgate.aiSdk.wrapGenerate({ model, params: { prompt: [] } })
        const result = (await made.catch(() => undefined)) as { readonly stream?: ReadableStream } | undefined
        await readAll(result?.stream)
      }
      assert.strictEqual(await withNext(floodgate), 1)
    })
  }
})
