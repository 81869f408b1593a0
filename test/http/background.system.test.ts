import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import * as Budget from "floodgate/Budget"
import * as Fetch from "floodgate/fetch"
import * as Governor from "floodgate/Governor"
import { serve } from "../support/httpServer.ts"

// Answers in the background, which the provider goes on with after their caller has left. Real HTTP, so these run on the real clock.

const event = (type: string, more: object): string => `event: ${type}\ndata: ${JSON.stringify({ type, ...more })}\n\n`
const created = event("response.created", { response: { id: "resp_1", status: "queued" }, sequence_number: 0 })
const completed = event("response.completed", {
  response: { id: "resp_1", status: "completed", usage: { input_tokens: 90, output_tokens: 7 } }
})

/** A provider that creates a response, and then sends `rest` or nothing until the caller has left. */
const world = Effect.fnUntraced(function* (rest?: string, path = "/v1/responses", opening = created) {
  const server = yield* serve((_, response) => {
    response.writeHead(200, { "content-type": "text/event-stream" }).write(opening)
    if (rest !== undefined) response.end(rest)
  })
  const context = yield* Layer.build(
    Governor.layer().pipe(
      Layer.provideMerge(Budget.layer({ limits: { inputTokens: { total: 10_000 }, outputTokens: { total: 10_000 } } }))
    )
  )
  const fetch = yield* Effect.provideContext(Fetch.make({ account: () => "own" }), context)
  const call = (more: object) =>
    Effect.promise(() =>
      fetch(`${server.url}${path}`, {
        method: "POST",
        body: JSON.stringify({ model: "gpt-6", input: "Hi", max_output_tokens: 700, stream: true, ...more })
      })
    )
  const budget = yield* Effect.provideContext(Budget.TokenBudget, context)
  /** The tokens that are left once no call is under way. */
  const left = Effect.map(
    Effect.repeat(budget.status, {
      until: ({ pools }) => Object.values(pools).every(({ inFlight }) => inFlight === 0),
      schedule: Schedule.spaced("2 millis")
    }),
    ({ pools }) => {
      const { dimensions } = Object.entries(pools).find(([name]) => name !== "default")![1]
      return { input: dimensions.inputTokens!.level, output: dimensions.outputTokens!.level }
    }
  )
  return { call, left, server }
})

const first = (response: Response) =>
  Effect.promise(async () => {
    const reader = response.body!.getReader()
    const { value } = await reader.read()
    return { text: new TextDecoder().decode(value), leave: () => reader.cancel() }
  })

describe("a streamed response in the background", () => {
  it.live("gives its caller the id at once, and keeps its reservation if the caller leaves", () =>
    Effect.gen(function* () {
      const { call, left, server } = yield* world()
      const { leave, text } = yield* first(yield* call({ background: true }))
      assert.strictEqual(text, created)
      yield* Effect.promise(leave)
      // OpenAI goes on, so the whole output may be billed.
      assert.isAtMost((yield* left).output, 9_300)
      assert.strictEqual(server.requests.length, 1)
    })
  )

  it.live("gives the id of an interaction, too", () =>
    Effect.gen(function* () {
      const begun = { event_type: "interaction.created", interaction: { id: "int_1", status: "in_progress" } }
      const sent = `data: ${JSON.stringify(begun)}\n\n`
      const { call, left, server } = yield* world(undefined, "/v1beta/interactions", sent)
      const generation_config = { max_output_tokens: 700 }
      const { leave, text } = yield* first(yield* call({ background: true, generation_config }))
      assert.strictEqual(text, sent)
      yield* Effect.promise(leave)
      assert.isAtMost((yield* left).output, 9_300)
      assert.strictEqual(server.requests.length, 1)
    })
  )

  it.live("is settled to its usage if it is read to the end", () =>
    Effect.gen(function* () {
      const { call, left } = yield* world(completed)
      const response = yield* call({ background: true })
      assert.strictEqual(yield* Effect.promise(() => response.text()), created + completed)
      assert.deepStrictEqual(yield* left, { input: 9_910, output: 9_993 })
    })
  )

  it.live("is not sent again if the connection breaks once it has an id", () =>
    Effect.gen(function* () {
      const { call, left, server } = yield* world("")
      const response = yield* call({ background: true })
      yield* Effect.promise(() => response.text())
      assert.strictEqual(server.requests.length, 1)
      assert.isAtMost((yield* left).output, 9_300)
    })
  )

  it.live("keeps its reservation if its caller leaves before the id", () =>
    Effect.gen(function* () {
      const server = yield* serve(() => {})
      const context = yield* Layer.build(
        Governor.layer().pipe(Layer.provideMerge(Budget.layer({ limits: { outputTokens: { total: 10_000 } } })))
      )
      const fetch = yield* Effect.provideContext(Fetch.make({ account: () => "own" }), context)
      const controller = new AbortController()
      const body = JSON.stringify({ model: "gpt-6", input: "Hi", max_output_tokens: 700, background: true })
      const asked = fetch(`${server.url}/v1/responses`, { method: "POST", body, signal: controller.signal })
      yield* Effect.repeat(
        Effect.sync(() => server.requests.length),
        { until: (count) => count === 1, schedule: Schedule.spaced("2 millis") }
      )
      controller.abort()
      yield* Effect.promise(() => asked.catch(() => {}))
      const budget = yield* Effect.provideContext(Budget.TokenBudget, context)
      const { pools } = yield* budget.status
      const [pool] = Object.entries(pools)
        .find(([name]) => name !== "default")!
        .slice(1) as [Budget.PoolStatus]
      assert.deepInclude(pool, { inFlight: 0 })
      assert.isAtMost(pool.dimensions.outputTokens!.level, 9_300)
    })
  )
})
