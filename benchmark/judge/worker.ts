/**
 * One side of `npm run judge`: a process that runs the hot paths of the checkout in which this file lies. It answers each request
 * `{ path, count }` with the bytes that `count` operations allocated, and with the number of its last mark. The gateway is driven from
 * outside: a request without a path begins a turn, and one without a count ends it.
 *
 * It runs under Valgrind, which writes what has been executed since the last mark into a file of that number: a mark is a call of
 * `os.getPriority`, which nothing else makes.
 *
 * The judge copies this file into the other checkout, so it may use public names of two versions at once, and nothing else.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import * as ManagedRuntime from "effect/ManagedRuntime"
import * as Budget from "floodgate/Budget"
import * as Governor from "floodgate/Governor"
import * as LlmClient from "floodgate/LlmClient"
import { LlmProvider, type Params, type Reply } from "floodgate/LlmProvider"
import * as Floodgate from "floodgate/promise"
import * as Gateway from "@floodgate/gateway"
import { getPriority } from "node:os"
import { Conversations } from "./conversation.ts"
import { cappedAgent, conversations, type Figure, isOverHttp, type Question, trees } from "./models.ts"

// Limits that never bind, or else a path would wait for real time. Without any, calls would be spaced until some are learned.
const plenty = { perSecond: 1e12, burst: 1e12 }
const limits = { requests: plenty, inputTokens: plenty, outputTokens: plenty, tokens: plenty }

const sentence = "A question of some length. "
const params: Params = {
  model: "claude-sonnet-5",
  max_tokens: 500,
  messages: [{ role: "user", content: sentence.repeat(20) }]
}
const reply: Reply<unknown> = {
  value: {
    id: "msg_1",
    type: "message",
    role: "assistant",
    model: "claude-sonnet-5",
    stop_reason: "end_turn",
    content: [{ type: "text", text: "An answer." }],
    usage: { input_tokens: 160, output_tokens: 8 }
  },
  signal: { dimensions: { inputTokens: { limit: 2e12, remaining: 1.99e12, roundedTo: 1_000 } } },
  requestId: undefined
}
const provider = Layer.succeed(LlmProvider)(
  LlmProvider.of({
    name: "bare",
    create: () => Effect.succeed(reply as never),
    stream: () => Effect.succeed({ value: Stream.empty, signal: undefined, requestId: undefined }),
    countTokens: () => Effect.succeed({ value: 1, signal: undefined, requestId: undefined })
  })
)

const repeated = <E, R>(operation: Effect.Effect<unknown, E, R>) =>
  Effect.fnUntraced(function* (count: number) {
    for (let n = 0; n < count; n++) yield* operation
  })

const encoder = new TextEncoder()
const chunk = (more: object) => encoder.encode(`data: ${JSON.stringify({ id: "c1", model: "gpt-6", ...more })}\n\n`)
const usage = { prompt_tokens: 2_000, completion_tokens: 500 }
const events = [
  ...Array.from({ length: 500 }, (_, n) => chunk({ choices: [{ index: 0, delta: { content: `word ${n}` } }] })),
  chunk({ choices: [{ index: 0, delta: {}, finish_reason: "stop" }] }),
  chunk({ choices: [], usage }),
  encoder.encode("data: [DONE]\n\n")
]
const whole = JSON.stringify({
  id: "c1",
  model: "gpt-6",
  choices: [{ index: 0, message: { role: "assistant", content: sentence.repeat(80) }, finish_reason: "stop" }],
  usage
})
const turn = JSON.stringify({
  ...(reply.value as object),
  usage: { input_tokens: 3, cache_creation_input_tokens: 500, cache_read_input_tokens: 20_000, output_tokens: 350 }
})
const answering: typeof fetch = async (url, init) => {
  if (String(url).includes("/messages")) return new Response(turn)
  if (!String(init?.body).includes('"stream":true')) return new Response(whole)
  const left = events.values()
  const body = new ReadableStream<Uint8Array>(
    {
      pull: (controller) => {
        const { done, value } = left.next()
        if (done === true) controller.close()
        else controller.enqueue(value)
      }
    },
    { highWaterMark: 0 }
  )
  return new Response(body, { headers: { "content-type": "text/event-stream" } })
}
const floodgate = Floodgate.create({ fetch: answering, limits })
const cap = { dollars: 1e6, per: "day" } as const
const capped = Floodgate.create({ fetch: answering, limits, cap })
const asked = (stream: boolean, sentences: number): RequestInit => ({
  method: "POST",
  headers: { authorization: "Bearer a-key-of-some-length", "content-type": "application/json" },
  body: JSON.stringify({
    model: "gpt-6",
    stream,
    messages: Array.from({ length: 8 }, () => ({ role: "user", content: sentence.repeat(sentences / 8) }))
  })
})
const read = (init: RequestInit) => async (count: number) => {
  for (let n = 0; n < count; n++) {
    const response = await floodgate.fetch("https://api.openai.com/v1/chat/completions", init)
    for await (const _ of response.body!);
  }
}

const client = ManagedRuntime.make(
  LlmClient.layerProvider().pipe(Layer.provideMerge(Budget.layer({ limits })), Layer.provideMerge(provider))
)
// A pool of its own, which hears nothing of a provider.
const budget = ManagedRuntime.make(Budget.layer({ limits }))
const gateway = ManagedRuntime.make(
  Gateway.layer({
    upstreams: { anthropic: process.argv[2]! },
    rules: [{ name: "capped", agent: cappedAgent, cap }]
  }).pipe(Layer.provide(Governor.layer()), Layer.provide(Budget.layer({ limits })), Layer.provide(Gateway.layerEvents))
)
const create = repeated(LlmClient.create(params))
const reserve = repeated(Budget.withReservation({ inputTokens: 160, outputTokens: 8 }, () => Effect.void))

/** The requests that a turn sends; they are made before it begins. */
let bodies: ReadonlyArray<string> = []
const senders = new Map(
  conversations
    .filter((path) => !isOverHttp(path))
    .map(({ conversation, isCapped, name }) => {
      const { fetch } = isCapped === true ? capped : floodgate
      const send = async (): Promise<void> => {
        for (const body of bodies) {
          const headers = { "x-api-key": "a-key-of-some-length", "anthropic-version": "2023-06-01" }
          const response = await fetch("https://api.anthropic.com/v1/messages", { method: "POST", headers, body })
          await response.text()
        }
      }
      return [name, { requests: new Conversations(conversation!), send }] as const
    })
)

/** Versions before 0.5 have none. */
const Trees = await import("floodgate/Trees").catch(() => undefined)
const spending = { tokens: 1e12, dollars: 1e6, calls: 1e9 }
const inTrees = trees.map(({ agents, isSpending, name }) => {
  const tree = Trees?.make(name, { agents, atOnce: agents, ...(isSpending ? spending : {}) })
  const as = (agent: number) =>
    tree === undefined ? Effect.void : LlmClient.create(params).pipe(Trees!.within(tree, { agent: `a${agent}` }))
  let begun: Promise<void> | undefined
  const begin = () =>
    client.runPromise(
      Effect.forEach(
        Array.from({ length: agents }, (_, n) => as(n)),
        (call) => call,
        { discard: true }
      )
    )
  const call = repeated(as(0))
  const run = async (count: number): Promise<void> => {
    begun ??= begin()
    await begun
    await client.runPromise(call(count))
  }
  return [name, run] as const
})

const paths: Readonly<Record<string, (count: number) => Promise<void>>> = {
  ...Object.fromEntries(inTrees),
  create: (count) => client.runPromise(create(count)),
  withReservation: (count) => budget.runPromise(reserve(count)),
  "fetch-4KB": read(asked(false, 152)),
  "fetch-100KB": read(asked(false, 3_840)),
  "stream-500-events": read(asked(true, 152))
}

let heap = 0
let marks = 0
const mark = (): number => {
  getPriority()
  return ++marks
}
const begin = (): void => {
  globalThis.gc!({ type: "minor" })
  heap = process.memoryUsage().heapUsed
  mark()
}

/** With a young space that is large enough, nothing is collected meanwhile, so the growth of the heap is what was allocated. */
const end = (): Figure => ({ mark: mark(), bytes: process.memoryUsage().heapUsed - heap })

const answer = async ({ count, path = "" }: Question): Promise<Figure> => {
  const sender = senders.get(path)
  if (sender !== undefined) bodies = sender.requests.next(count)
  if (count > 0) begin()
  if (count > 0) await (sender?.send() ?? paths[path]?.(count))
  return end()
}

process.on("message", (question: Question) => void answer(question).then((found) => process.send!(found)))
process.on("disconnect", () => process.exit(0))
process.send!(await gateway.runPromise(Effect.map(Gateway.Gateway, ({ url }) => url)))
