/** A gateway in front of a scripted provider, and calls of Chat Completions. */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import * as Budget from "floodgate/Budget"
import * as Gateway from "@floodgate/gateway"
import * as Governor from "floodgate/Governor"
import * as Retry from "floodgate/Retry"
import type * as Http from "node:http"
import { until } from "../../../test/support/gateway.ts"
import { message } from "../../../test/support/httpProvider.ts"
import { type Handler, serve, type TestServer } from "../../../test/support/httpServer.ts"

const quick = Retry.make({ base: "5 millis", jitter: "none", attempts: 2 })

/** Limits that never refill, so that levels show what was settled. */
export const ledger: Budget.Options = {
  limits: { requests: { total: 1_000 }, inputTokens: { total: 100_000 }, outputTokens: { total: 100_000 } }
}

interface World {
  readonly url: string
  readonly upstream: TestServer
  readonly bodies: ReadonlyArray<string>
  readonly pool: Effect.Effect<Budget.PoolStatus>
  /** Begins to close the gateway. */
  readonly close: Effect.Effect<void>
}

/** Makes a gateway whose provider gives this answer. */
export const world = Effect.fnUntraced(function* (
  answer: Handler,
  {
    budget = ledger,
    prices,
    retry = quick,
    ...options
  }: Gateway.Options & {
    readonly budget?: Budget.Options
    readonly prices?: Governor.Options["prices"]
    readonly retry?: typeof quick
  } = {}
): Effect.fn.Return<World, Gateway.CannotListen, Scope.Scope> {
  const bodies: Array<string> = []
  const upstream = yield* serve((request, response, body) => {
    bodies.push(body)
    answer(request, response, body)
  })
  const context = yield* Layer.build(
    Governor.layer({ prices, retry: retry as never }).pipe(Layer.provideMerge(Budget.layer(budget)))
  )
  const scope = yield* Scope.make()
  const gateway = yield* Gateway.make({
    upstreams: { anthropic: upstream.url, openai: upstream.url, gemini: upstream.url },
    drain: "20 millis",
    ...options
  }).pipe(Effect.provideContext(context), Scope.provide(scope))
  const close = Scope.close(scope, Exit.void)
  yield* Effect.addFinalizer(() => close)
  const { status } = Context.get(context, Budget.TokenBudget)
  const pool = Effect.map(
    status,
    ({ pools }) => Object.entries(pools).find(([name]) => name !== "default")?.[1] ?? pools["default"]!
  )
  return { url: gateway.url, upstream, bodies, pool, close }
})

/** Waits until everything has been released; the timeout of the test is the limit. */
export const idle = ({ pool }: World) => until(pool, ({ inFlight, queued }) => inFlight === 0 && queued === 0)

export interface Got {
  readonly status: number
  readonly headers: Headers
  readonly text: string
}

export const ask = (url: string, init: RequestInit = {}): Effect.Effect<Got, unknown> =>
  Effect.tryPromise({
    try: async (signal) => {
      const response = await fetch(url, { signal, ...init })
      return { status: response.status, headers: response.headers, text: await response.text() }
    },
    catch: (thrown) => thrown
  })

export const chat = (more: object = {}, headers: Record<string, string> = {}): RequestInit => ({
  method: "POST",
  headers: { authorization: "Bearer sk-one-two-three", "content-type": "application/json", ...headers },
  body: JSON.stringify({ model: "gpt-6", messages: [{ role: "user", content: "Hello" }], ...more })
})

/** A call as Claude Code sends it: of the first agent of a session, or of a sub-agent, which another one may have started. */
export const ofClaudeCode = (
  session: string,
  subAgent?: string,
  parent?: string,
  headers: Record<string, string> = {}
): RequestInit => ({
  method: "POST",
  headers: {
    "x-api-key": "sk-one-x9Yz",
    "anthropic-version": "2023-06-01",
    "x-claude-code-session-id": session,
    ...(subAgent === undefined ? {} : { "x-claude-code-agent-id": subAgent }),
    ...(parent === undefined ? {} : { "x-claude-code-parent-agent-id": parent }),
    ...headers
  },
  body: JSON.stringify({ model: "claude-test", max_tokens: 100, messages: [{ role: "user", content: "Hello" }] })
})

/** A message of the Messages API. */
export const messages: Handler = (_, response) => json(response, 200, JSON.stringify(message(10, 10, "claude-test")))

export const completion = JSON.stringify({
  id: "c1",
  model: "gpt-6",
  choices: [{ index: 0, message: { role: "assistant", content: "Hi, ✓" }, finish_reason: "stop" }],
  usage: { prompt_tokens: 900, completion_tokens: 30 }
})

export const json = (
  response: Http.ServerResponse,
  status: number,
  body: string,
  headers: Record<string, string> = {}
) => void response.writeHead(status, { "content-type": "application/json", ...headers }).end(body)

export const answers: Handler = (_, response) => json(response, 200, completion, { "x-request-id": "r1" })

const event = (data: object): string => `data: ${JSON.stringify(data)}\n\n`
export const events = [
  event({ id: "c1", choices: [{ index: 0, delta: { content: "Hi" } }] }),
  event({ id: "c1", choices: [{ index: 0, delta: {}, finish_reason: "stop" }] }),
  event({ id: "c1", choices: [], usage: { prompt_tokens: 900, completion_tokens: 30 } }),
  "data: [DONE]\n\n"
]
export const asksUsage = { stream: true, stream_options: { include_usage: true } }
