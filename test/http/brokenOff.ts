/** Streams that are abandoned at any point in any way, with a provider in memory. */
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

/** The header by which the provider recognises a call. */
const callHeader = "x-call"

/**
 * Sends some chunks, and then ends, breaks or falls silent. `open` counts the bodies that have not ended. `silent` is called for a
 * call that gets nothing more, because its caller would wait for ever.
 */
const provider = (random: () => number, silent: (call: string) => void) => {
  let open = 0
  const fetch: typeof globalThis.fetch = async (_, init) => {
    // Rarely before the first content, because several such failures in a row are an outage, which pauses all calls.
    if (random() < 0.01) throw Object.assign(new TypeError("fetch failed"), { cause: { code: "ECONNRESET" } })
    const max = random() < 0.02 ? 0 : 2 + Math.floor(random() * chunks.length)
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
          const next = sent < max ? chunks[sent++] : undefined
          if (next !== undefined) return controller.enqueue(next)
          if (end < 0.2 && sent < chunks.length) {
            silent(new Headers(init?.headers).get(callHeader)!)
            return new Promise<void>(() => {})
          }
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

/** Reads part of a stream, and abandons it in one of the possible ways. */
const leave = async (
  fetch: typeof globalThis.fetch,
  random: () => number,
  call: string,
  controller: AbortController
): Promise<void> => {
  const early = random() < 0.1
  const asked = fetch(url, { method: "POST", body, headers: { [callHeader]: call }, signal: controller.signal })
  if (early) controller.abort()
  // Few enough that most calls are sent even on a fast machine, where an abort may come before they are admitted.
  const hurry = random() < 0.2 ? setImmediate(() => controller.abort()) : undefined
  try {
    const response = await asked
    const reader = response.body!.getReader()
    const max = Math.floor(random() * 8)
    for (let n = 0; n < max && !(await reader.read()).done; n++);
    if (random() < 0.5) await reader.cancel()
    else controller.abort()
  } catch {
    // The stream broke off there.
  } finally {
    clearImmediate(hurry)
  }
}

const plenty = { perSecond: 1e9, burst: 1e9 }
/** The limit on requests never refills, so that its level shows how many were sent. No other limit applies. */
const limits = { requests: { total: 1e9 }, inputTokens: plenty, outputTokens: plenty, tokens: plenty }

/** Asserts that nothing is in flight, waiting or connected once all callers have left. */
export const nothingIsLeft = (count: number, seed: number, concurrency = 16) =>
  Effect.gen(function* () {
    const random = mulberry(seed)
    const callers = new Map<string, AbortController>()
    const { fetch: upstream, open } = provider(random, (call) => setImmediate(() => callers.get(call)?.abort()))
    const fetch = yield* Fetch.make({ fetch: upstream })
    const budget = yield* Budget.TokenBudget
    const call = (name: string): Effect.Effect<void> =>
      Effect.promise(() => {
        const controller = new AbortController()
        callers.set(name, controller)
        return leave(fetch, random, name, controller).finally(() => callers.delete(name))
      })
    yield* Effect.forEach(
      Array.from({ length: count }, (_, n) => `${n}`),
      call,
      { concurrency: 4 * concurrency, discard: true }
    )
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
