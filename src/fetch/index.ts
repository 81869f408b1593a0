/**
 * A governed `fetch`: any client that takes a `fetch` gets the budget and the retries by one option.
 *
 * Calls of Anthropic Messages, OpenAI Chat Completions and Responses, and Gemini are recognised by their path, admitted by the
 * `Governor`, settled by the usage in their answers, and retried by its policy. All other requests pass untouched. Programs
 * without Effect have the same as `Floodgate.create({ ... }).fetch` of `floodgate/promise`.
 *
 * **Details**
 *
 * - A stream is retried until its first content. Its bytes are passed on as they come, and its reservation lives until the body
 *   was read, cancelled, aborted or forgotten.
 * - What the provider rejects in the end comes back as its own response, with `x-should-retry: false`, so that clients do
 *   not start again. What breaks the connection in the end is thrown as it was.
 * - What the budget refuses is answered as the provider would: 429 with a `retry-after` of 5 to 59 s, or 413 for what can
 *   never fit, 402 where a quota is used up, 503 where the budget's store is away.
 * - A pool is the host, the organisation (a hash of the credential, until headers name it) and the class of models. So one
 *   budget serves several providers and keys, and each has the limits that the budget was given for that class.
 * - Chat Completions streams are asked for their usage (`stream_options.include_usage`), and the chunk with it is taken out
 *   for callers who did not ask.
 * - `x-floodgate-agent` names the agent of a request, and is not sent on.
 *
 * **Gotchas**
 *
 * Give clients no retries of their own (`maxRetries: 0`): each of theirs would be a governed call with its own retries. And
 * give them time: their timeout counts the time in the queue, because it runs around the `fetch`.
 *
 * Node's `fetch` waits 5 minutes for headers; a call that is not streamed and takes longer needs a `fetch` with other limits.
 *
 * **Example** (A client in an Effect program)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 * import * as Budget from "floodgate/Budget"
 * import * as Fetch from "floodgate/fetch"
 * import * as Governor from "floodgate/Governor"
 *
 * const upstream = async () =>
 *   Response.json({ choices: [{ message: { content: "Hello" } }], usage: { prompt_tokens: 9, completion_tokens: 1 } })
 *
 * const program = Effect.gen(function* () {
 *   const fetch = yield* Fetch.make({ fetch: upstream })
 *   const body = JSON.stringify({ model: "gpt-6", messages: [{ role: "user", content: "Hi" }] })
 *   const ask = () => fetch("https://api.openai.com/v1/chat/completions", { method: "POST", body })
 *   const response = yield* Effect.promise(ask)
 *   const budget = yield* Budget.TokenBudget
 *   const { pools } = yield* budget.status
 *   return [response.status, Object.keys(pools)] as const
 * })
 *
 * const live = Governor.layer().pipe(Layer.provideMerge(Budget.layer()))
 *
 * await Effect.runPromise(Effect.scoped(Effect.provide(program, live))) // => [200, ["api.openai.com/gpt-6"]]
 * ```
 *
 * @since 0.2.0
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { makeRun } from "../governor/promises.ts"
import type * as Governor from "../Governor.ts"
import { headerReader } from "../protocol/headers.ts"
import type { Match } from "../protocol/protocol.ts"
import * as Engine from "./engine.ts"
import { governedResponse, sentOf } from "./response.ts"

export type { CallRequest } from "./engine.ts"

type Fetch = typeof globalThis.fetch

/**
 * How a governed `fetch` treats requests.
 *
 * @category options
 * @since 0.2.0
 */
export interface Options extends Engine.EngineOptions {
  /**
   * What sends the requests.
   *
   * @default `globalThis.fetch`, as it is when a request is made
   */
  readonly fetch?: Fetch | undefined
}

type Input = Parameters<Fetch>[0]
type Init = NonNullable<Parameters<Fetch>[1]>

// -----------------------------------------------------------------------------
// Requests
// -----------------------------------------------------------------------------

/** Other copies of `Request` are told by their form. */
const isRequest = (input: Input): input is Request =>
  typeof input === "object" && "url" in input && "method" in input && "headers" in input

const decoder = new TextDecoder()

/** The text of a body; undefined if there is none, or if it can be read only once. */
const textOf = (body: Init["body"]): string | undefined => {
  if (typeof body === "string") return body
  return body instanceof Uint8Array || body instanceof ArrayBuffer ? decoder.decode(body) : undefined
}

type Body = NonNullable<Init["body"]>

/** A body that can be sent more than once. */
const repeatable = async (body: Body): Promise<Body> =>
  textOf(body) === undefined ? new Response(body).arrayBuffer() : body

/** A request as an address and settings, whose body can be sent more than once. */
const separate = async (input: Input, init: Init): Promise<readonly [string | URL, Init]> => {
  const { body } = init
  if (!isRequest(input)) return [input, body == null ? init : { ...init, body: await repeatable(body) }]
  const { credentials, headers, keepalive, method, redirect, signal } = input
  const given = body == null ? await input.arrayBuffer() : await repeatable(body)
  return [input.url, { credentials, headers, keepalive, method, redirect, signal, ...init, body: given }]
}

/** What is sent of a request: everything that it was made with, save what is changed. */
const outgoing = (init: Init, headers: Headers, body: string | undefined): Init => {
  const isNamed = headers.has("x-floodgate-agent")
  if (!isNamed && body === undefined) return init
  const changed = new Headers(headers)
  changed.delete("x-floodgate-agent")
  if (body === undefined) return { ...init, headers: changed }
  // Some clients write it themselves.
  changed.delete("content-length")
  return { ...init, headers: changed, body }
}

// -----------------------------------------------------------------------------
// Constructors
// -----------------------------------------------------------------------------

/**
 * Makes a governed `fetch` over the governor of the context. Calls that run or wait when the scope closes fail, and so does
 * every later one.
 *
 * **Gotchas**
 *
 * Throws a `RangeError` when `idleTimeout` is no duration above zero.
 *
 * @category constructors
 * @since 0.2.0
 */
export const make = Effect.fnUntraced(function* (
  options: Options = {}
): Effect.fn.Return<Fetch, never, Governor.Governor | Scope.Scope> {
  const engine = yield* Engine.make(options)
  const run = yield* makeRun
  const send: Fetch = (...request) => (options.fetch ?? globalThis.fetch)(...request)

  const governed = async (found: Match, input: Input, given: Init): Promise<Response> => {
    const [url, init] = await separate(input, given)
    const headers = new Headers(init.headers)
    const text = textOf(init.body) ?? ""
    const planned = engine.plan(found, { url: String(url), header: headerReader(headers), body: text })
    if (planned === undefined) return send(url, init)
    const signal = init.signal ?? undefined
    const call = engine.call(planned, async (signal, body) =>
      sentOf(await send(url, { ...outgoing(init, headers, body), signal }))
    )
    try {
      return governedResponse(await run(call, signal), signal)
    } catch (error) {
      const refusal = signal?.aborted === true ? undefined : Engine.refuse(planned, error)
      if (refusal === undefined) throw error
      return new Response(refusal.body, { status: refusal.status, headers: refusal.headers })
    }
  }

  return async (input, init = {}) => {
    const [method, url] = isRequest(input) ? [input.method, input.url] : ["GET", String(input)]
    const found = engine.route(init.method ?? method, url)
    return found === undefined ? send(input, init) : governed(found, input, init)
  }
})
