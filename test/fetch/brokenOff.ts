/** Streams that are left at any point in any way, over a provider in memory. */
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Budget from "floodgate/Budget"
import * as Fetch from "floodgate/fetch"
import * as Governor from "floodgate/Governor"
import * as Retry from "floodgate/Retry"
import { mulberry } from "../support/random.ts"

const encoder = new TextEncoder()
const chunk = (more: object) => encoder.encode(`data: ${JSON.stringify({ id: "c1", model: "gpt-6", ...more })}\n\n`)
const chunks = [
  chunk({ choices: [{ index: 0, delta: { role: "assistant", content: "" } }] }),
  chunk({ choices: [{ index: 0, delta: { content: "one" } }] }),
  chunk({ choices: [{ index: 0, delta: { content: "two" } }] }),
  chunk({ choices: [{ index: 0, delta: {}, finish_reason: "stop" }] }),
  chunk({ choices: [], usage: { prompt_tokens: 90, completion_tokens: 3 } }),
  encoder.encode("data: [DONE]\n\n")
]

/** Sends some chunks, and ends, breaks or falls silent. `open` counts the bodies that nobody has ended. */
const provider = (random: () => number) => {
  let open = 0
  const fetch: typeof globalThis.fetch = async (_, init) => {
    // Seldom before the first content: several such failures in a row are an outage, which pauses everybody.
    if (random() < 0.01) throw Object.assign(new TypeError("fetch failed"), { cause: { code: "ECONNRESET" } })
    const most = random() < 0.02 ? 0 : 2 + Math.floor(random() * chunks.length)
    const end = random()
    let sent = 0
    let isOpen = true
    open++
    const ended = () => {
      if (isOpen) open--
      isOpen = false
    }
    const body = new ReadableStream<Uint8Array>(
      {
        start: (controller) =>
          init?.signal?.addEventListener("abort", () => {
            ended()
            controller.error(init.signal!.reason)
          }),
        pull: (controller) => {
          const next = sent < most ? chunks[sent++] : undefined
          if (next !== undefined) return controller.enqueue(next)
          if (end < 0.2 && sent < chunks.length) return new Promise<void>(() => {})
          ended()
          if (end < 0.4) controller.error(new TypeError("terminated"))
          else controller.close()
          return undefined
        },
        cancel: ended
      },
      { highWaterMark: 0 }
    )
    return new Response(body, { headers: { "content-type": "text/event-stream" } })
  }
  return { fetch, open: () => open }
}

const url = "https://api.openai.com/v1/chat/completions"
const body = JSON.stringify({ model: "gpt-6", stream: true, messages: [{ role: "user", content: "Hi" }] })

/** Reads a part of a stream, and leaves it in one of the ways there are. */
const leave = async (fetch: typeof globalThis.fetch, random: () => number): Promise<void> => {
  const controller = new AbortController()
  const early = random() < 0.1
  const asked = fetch(url, { method: "POST", body, signal: controller.signal })
  if (early) controller.abort()
  // Few enough that most calls are sent on a fast machine, too, where an abort comes before the queue has let them go.
  const hurry = random() < 0.2 ? setImmediate(() => controller.abort()) : undefined
  const leaveIn = (millis: number) => setTimeout(() => controller.abort(), millis)
  // A stream that falls silent before its content is held back for long; those who wait in the queue are patient.
  let patience = leaveIn(2_000)
  try {
    const response = await asked
    clearTimeout(patience)
    patience = leaveIn(20)
    const reader = response.body!.getReader()
    const most = Math.floor(random() * 8)
    for (let n = 0; n < most && !(await reader.read()).done; n++);
    if (random() < 0.5) await reader.cancel()
    else controller.abort()
  } catch {
    // It was broken off there.
  } finally {
    clearImmediate(hurry)
    clearTimeout(patience)
  }
}

const plenty = { perSecond: 1e9, burst: 1e9 }
/** Requests never come back, so that their level shows how many were sent; nothing else binds. */
const limits = { requests: { total: 1e9 }, inputTokens: plenty, outputTokens: plenty, tokens: plenty }

/** The law: when all have left, nothing is in flight, nobody waits, and no connection is open. */
export const nothingIsLeft = (count: number, seed: number, concurrency = 16) =>
  Effect.gen(function* () {
    const random = mulberry(seed)
    const { fetch: upstream, open } = provider(random)
    const fetch = yield* Fetch.make({ fetch: upstream })
    const budget = yield* Budget.TokenBudget
    yield* Effect.forEach(Array.from({ length: count }), () => Effect.promise(() => leave(fetch, random)), {
      concurrency: 4 * concurrency,
      discard: true
    })
    const pools = Effect.map(budget.status, ({ pools }) => Object.values(pools))
    yield* Effect.repeat(Effect.andThen(Effect.sleep("1 millis"), pools), {
      until: (pools) => pools.every(({ inFlight, queued }) => inFlight === 0 && queued === 0) && open() === 0
    })
    const asked = (yield* pools).reduce(
      (sum, { dimensions: { requests } }) => sum + requests!.capacity - requests!.level,
      0
    )
    assert.isAbove(asked, count / 4)
  }).pipe(
    Effect.scoped,
    Effect.provide(
      Governor.layer({ retry: Retry.make({ base: "1 millis", jitter: "none", attempts: 3 }) }).pipe(
        Layer.provideMerge(Budget.layer({ limits, concurrency }))
      )
    )
  )
