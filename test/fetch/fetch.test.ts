import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Budget from "floodgate/Budget"
import * as Fetch from "floodgate/fetch"
import * as Governor from "floodgate/Governor"
import * as Retry from "floodgate/Retry"
import type * as Http from "node:http"
import { serve, type TestServer } from "../support/httpServer.ts"

// Real HTTP, so these run on the real clock. Waits are for conditions, never for times.

const quick = Retry.make({ base: "5 millis", jitter: "none" })

/** Limits that never refill, so that levels show what was settled. */
const ledger: Budget.Options = {
  limits: { requests: { total: 1_000 }, inputTokens: { total: 100_000 }, outputTokens: { total: 100_000 } }
}

interface Reply {
  readonly status?: number
  readonly headers?: Record<string, string>
  readonly body: string | Uint8Array
  /** What becomes of the connection after the body. */
  readonly then?: "end" | "cut" | "hang"
}

interface World extends TestServer {
  readonly fetch: Fetch.Fetch
  readonly bodies: ReadonlyArray<string>
  readonly pools: Effect.Effect<Readonly<Record<string, Budget.PoolStatus>>>
  /** The only pool that was used. */
  readonly pool: Effect.Effect<Budget.PoolStatus>
}

const write = (response: Http.ServerResponse, { body, headers, status = 200, then = "end" }: Reply): void => {
  response.writeHead(status, { "content-type": "application/json", ...headers })
  response.write(body, () => {
    if (then === "end") response.end()
    if (then === "cut") response.socket?.destroy()
  })
}

const world = Effect.fnUntraced(function* (
  reply: (request: Http.IncomingMessage, body: string, count: number) => Reply,
  {
    budget = ledger,
    retry = quick,
    ...options
  }: Fetch.Options & {
    readonly budget?: Budget.Options
    readonly retry?: Retry.Policy<never>
  } = {}
): Effect.fn.Return<World, never, Scope.Scope> {
  const bodies: Array<string> = []
  const server = yield* serve((request, response, body) => {
    bodies.push(body)
    write(response, reply(request, body, bodies.length))
  })
  const context = yield* Layer.build(
    Governor.layer({ retry: retry as never }).pipe(Layer.provideMerge(Budget.layer(budget)))
  )
  const fetch = yield* Effect.provideContext(Fetch.make(options), context)
  const pools = Effect.map(
    Effect.flatMap(Effect.provideContext(Budget.TokenBudget, context), (budget) => budget.status),
    ({ pools }) => Object.fromEntries(Object.entries(pools).filter(([name]) => name !== "default"))
  )
  return { ...server, fetch, bodies, pools, pool: Effect.map(pools, (pools) => Object.values(pools)[0]!) }
})

/** Waits until all is given back; the test's own timeout is the limit. */
const idle = ({ pool }: World) =>
  Effect.repeat(pool, {
    until: ({ inFlight, queued }) => inFlight === 0 && queued === 0,
    schedule: Schedule.spaced("2 millis")
  })

const key = { authorization: "Bearer sk-one-two-three" }

const chat = (more: object = {}): RequestInit => ({
  method: "POST",
  headers: { ...key, "content-type": "application/json" },
  body: JSON.stringify({ model: "gpt-6", messages: [{ role: "user", content: "Hello" }], ...more })
})

const completion = JSON.stringify({
  id: "c1",
  model: "gpt-6",
  choices: [{ index: 0, message: { role: "assistant", content: "Hi" }, finish_reason: "stop" }],
  usage: { prompt_tokens: 900, completion_tokens: 30 }
})

describe("floodgate/fetch", () => {
  it.live("settles a whole answer to its usage, and gives it as it is", () =>
    Effect.gen(function* () {
      const here = yield* world(() => ({ body: completion, headers: { "x-request-id": "r1" } }))
      const response = yield* Effect.promise(() => here.fetch(`${here.url}/v1/chat/completions`, chat()))
      assert.strictEqual(response.status, 200)
      assert.strictEqual(response.url, `${here.url}/v1/chat/completions`)
      assert.strictEqual(response.headers.get("x-request-id"), "r1")
      assert.strictEqual(yield* Effect.promise(() => response.text()), completion)
      const pool = yield* idle(here)
      assert.strictEqual(pool.dimensions.requests!.level, 999)
      assert.strictEqual(pool.dimensions.inputTokens!.level, 99_100)
    })
  )
})
