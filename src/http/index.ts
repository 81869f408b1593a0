/**
 * A governed `fetch`: any client that takes a `fetch` gets the budget and the retries by one option.
 *
 * Calls of the protocols of `floodgate/protocol` are recognised by their path: those of Anthropic, OpenAI, Gemini, Bedrock, Cohere,
 * Mistral, Ollama and llama.cpp, and of the services that speak one of them. The `Governor` admits them, settles them to the usage in their
 * answers, and retries them by its policy. All other requests are passed on unchanged. Programs without Effect use
 * `Floodgate.create({ ... }).fetch` of `floodgate/promise`.
 *
 * **Details**
 *
 * - A stream is retried until its first content. Its bytes are passed on as they arrive, and its reservation lasts until the
 *   body was read, cancelled, aborted or garbage collected.
 * - A streamed response in the background (`background: true`) is passed on as soon as it has an id, so that its caller can leave, and
 *   resume, fetch or cancel it. OpenAI goes on after that, so a call that was left keeps its reservation.
 * - After the last retry a failed call returns the provider's own response with `x-should-retry: false`, so that clients do
 *   not retry it again. A broken connection is thrown as the error that it was.
 * - A call that the budget refuses gets a response in the provider's form: 429 with a `retry-after` of 5 to 59 s, 413 if it can
 *   never fit, 402 if a quota is used up, or 503 if the budget's store cannot be reached.
 * - A pool is the host, the organisation (a hash of the credential, until headers name it) and the class of models. So one
 *   budget serves several providers and keys, each with the limits that the budget has for that class.
 * - Streams of Chat Completions are asked for their usage (`stream_options.include_usage`). If the caller did not ask for it,
 *   the chunk with the usage is removed.
 * - Under a cap in dollars (`purses` of the `callOptions`, or around), a request is refused with 402 if a model answers it and its
 *   usage cannot be read, such as a batch or a transcription. Without a cap it is passed on, and reported once in the log.
 * - The header `x-floodgate-agent` names the agent of a request, `x-floodgate-job` its job, and `x-floodgate-places` the only places
 *   where it may go. `x-floodgate-job-size` says how many tokens all of its job will use. They are not sent to the provider.
 *
 * **Gotchas**
 *
 * Turn off the retries of clients (`maxRetries: 0`): each of them would be a governed call that is retried in turn. Raise the
 * timeouts of clients: they include the time in the queue, because they surround the `fetch`.
 *
 * Node's `fetch` waits 5 minutes for headers. A call that is not streamed and takes longer needs a `fetch` with other limits.
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
 * @stability stable
 * @since 0.2.0
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type * as Governor from "../Governor.ts"
import { onAbort } from "../call/aborts.ts"
import { callback, check, options as optionsOf } from "../domain/input/checks.ts"
import { type HeaderReader, headerReader } from "../protocol/headers.ts"
import { insertInto } from "../protocol/json.ts"
import { agentHeader, jobHeader, jobSizeHeader } from "../protocol/lineage.ts"
import type { Match } from "../protocol/protocol.ts"
import type { RefusalResponse } from "../protocol/refusal.ts"
import { setTraceparent } from "../call/trace.ts"
import * as Engine from "./engine.ts"
import { checks, type EngineOptions } from "./models.ts"
import { join } from "./reply.ts"
import { ofCallers } from "./credentials.ts"
import { httpPlaces, placesHeader } from "./places.ts"
import { makeCaller } from "./driven.ts"
import { fetchResponseOf, readerOf } from "./response.ts"

export type { CallRequest, HttpPlace } from "./models.ts"

type Fetch = typeof globalThis.fetch

/**
 * Options of a governed `fetch`.
 *
 * @stability stable
 * @category options
 * @since 0.2.0
 */
export interface Options extends EngineOptions {
  /**
   * The function that sends the requests.
   *
   * @default `globalThis.fetch`, looked up for each request
   */
  readonly fetch?: Fetch | undefined
}

type FetchInput = Parameters<Fetch>[0]
type FetchInit = NonNullable<Parameters<Fetch>[1]>

// -----------------------------------------------------------------------------
// Requests
// -----------------------------------------------------------------------------

/** There may be several `Request` classes, so the shape decides. */
const isRequest = (input: FetchInput): input is Request =>
  typeof input === "object" && "url" in input && "method" in input && "headers" in input

const decoder = new TextDecoder()

/** The text of a body; undefined if there is no body, or if it can be read only once. */
const textOf = (body: FetchInit["body"]): string | undefined => {
  if (typeof body === "string") return body
  return body instanceof Uint8Array || body instanceof ArrayBuffer ? decoder.decode(body) : undefined
}

/** Reads a body that can be read only once. When the caller aborts, the body is cancelled. */
const bytesOf = async (body: unknown, signal: AbortSignal | null | undefined): Promise<Uint8Array> => {
  signal?.throwIfAborted()
  const reader = readerOf(body)
  const stop = (): void => void reader?.cancel(signal?.reason).catch(() => {})
  const withdraw = signal == null ? undefined : onAbort(signal, stop)
  try {
    const chunks: Array<Uint8Array> = []
    for (let read = await reader?.read(); read?.done === false; read = await reader?.read()) chunks.push(read.value)
    signal?.throwIfAborted()
    return join(chunks)
  } finally {
    withdraw?.()
  }
}

/** The options of a request with a body that can be sent more than once, and with the type that `fetch` would send for it. */
const repeatable = async (init: FetchInit): Promise<FetchInit> => {
  if (init.body == null || textOf(init.body) !== undefined) return init
  const { body, headers: implied } = new Response(init.body)
  const headers = new Headers(init.headers)
  const type = implied.get("content-type")
  if (type !== null && !headers.has("content-type")) headers.set("content-type", type)
  return { ...init, headers, body: (await bytesOf(body, init.signal)) as Uint8Array<ArrayBuffer> }
}

/** A request as its address and options whose body can be sent more than once. */
type Separated = readonly [url: string | URL, init: FetchInit]

/** Splits a request. The result is a promise if a body must be read first. */
const separate = (input: FetchInput, given: FetchInit): Separated | Promise<Separated> =>
  isRequest(input) || (given.body != null && typeof given.body !== "string") ? read(input, given) : [input, given]

const read = async (input: FetchInput, given: FetchInit): Promise<Separated> => {
  if (!isRequest(input)) return [input, await repeatable(given)]
  const { credentials, headers, keepalive, method, redirect, signal } = input
  const init = { credentials, headers, keepalive, method, redirect, signal, ...given }
  if (init.body != null) return [input.url, await repeatable(init)]
  // Reading a used body fails as it does in plain `fetch`. Some platforms do not expose `body`.
  const isHidden = input.bodyUsed || input.body === undefined
  const body = isHidden ? await input.arrayBuffer() : await bytesOf(input.body, init.signal)
  return [input.url, { ...init, body: body as Uint8Array<ArrayBuffer> }]
}

/** The headers that are meant for this library, and not for the provider. */
const ownHeaders = [agentHeader, jobHeader, jobSizeHeader, placesHeader]

/** The options with which a request is sent: the caller's, with the changed body, the credential of its place, and without our headers. */
const outgoing = (
  init: FetchInit,
  headers: Headers,
  hasOwn: boolean,
  change: Engine.BodyChange | undefined,
  target: Engine.Target | undefined,
  traceparent: string | undefined
): FetchInit => {
  const isReplaced = target?.isCallers === false
  if (!hasOwn && change === undefined && !isReplaced && traceparent === undefined) return init
  const changed = new Headers(headers)
  if (traceparent !== undefined) setTraceparent(changed, traceparent)
  for (const name of ownHeaders) changed.delete(name)
  if (isReplaced) for (const name of ofCallers) changed.delete(name)
  if (target?.credential !== undefined) changed.set(...target.credential)
  if (change === undefined) return { ...init, headers: changed }
  // Some clients set it, and it is wrong for the changed body.
  changed.delete("content-length")
  const body = "text" in change ? change.text : insertInto(textOf(init.body) ?? "", change.insert)
  return { ...init, headers: changed, body }
}

/** A record is faster to read than a `Headers` object. */
const readerFor = (headers: FetchInit["headers"]): HeaderReader =>
  headerReader(Object.fromEntries(headers instanceof Headers ? headers : new Headers(headers)))

const responseOf = ({ body, headers, status }: RefusalResponse): Response => new Response(body, { status, headers })

// -----------------------------------------------------------------------------
// Constructors
// -----------------------------------------------------------------------------

const optionsCheck = optionsOf<Options>({ ...checks, fetch: callback, places: httpPlaces() })

/**
 * Makes a governed `fetch` that uses the governor of the context. Calls that are running or waiting when the scope closes fail
 * with a `ClosedError`, streams that are being read end with it, and all later calls fail with it.
 *
 * **Gotchas**
 *
 * Throws a `RangeError` if `idleTimeout` is not a duration above zero.
 *
 * @stability stable
 * @category constructors
 * @since 0.2.0
 */
export const make = Effect.fnUntraced(function* (
  options: Options = {}
): Effect.fn.Return<Fetch, never, Governor.Governor | Scope.Scope> {
  check("Fetch.make", optionsCheck, options)
  const engine = yield* Engine.make({ ...options, operation: "Fetch.make" })
  const call = yield* makeCaller(engine)
  const send: Fetch = (...request) => (options.fetch ?? globalThis.fetch)(...request)

  /** Sends a request that is no call, unless it is refused under a cap. */
  const judged = (
    found: Match | undefined,
    header: HeaderReader,
    [url, init]: Separated,
    body = textOf(init.body)
  ): Promise<Response> => {
    const { method = "GET" } = init
    const hasBody = init.body != null
    const verdict = engine.judge({ method, url: String(url), header, protocol: found?.protocol, hasBody, body })
    return typeof verdict === "object" ? Promise.resolve(responseOf(verdict)) : send(url, init)
  }

  /** Sends a request that is no call. Its body is read only if a cap applies to its caller. */
  const other = (method: string, input: FetchInput, init: FetchInit): Promise<Response> => {
    const [given, sent] = isRequest(input) ? [input, input.body] : [undefined, undefined]
    const header = readerFor(init.headers ?? given?.headers)
    const body = typeof init.body === "string" ? init.body : undefined
    const hasBody = (init.body ?? sent) != null
    const url = given?.url ?? String(input)
    const verdict = engine.judge({ method: method.toUpperCase(), url, header, protocol: undefined, hasBody, body })
    if (typeof verdict === "object") return Promise.resolve(responseOf(verdict))
    if (verdict === "passes") return send(input, init)
    // The type of a form is known once it was read.
    return Promise.resolve(separate(input, init)).then((each) =>
      judged(undefined, readerFor(each[1].headers), each, textOf(each[1].body) ?? "")
    )
  }

  const governed = (found: Match, [url, init]: Separated): Promise<Response> => {
    const headers = new Headers(init.headers)
    const header = readerFor(headers)
    const hasOwn = ownHeaders.some((name) => header(name) !== undefined)
    const text = () => textOf(init.body) ?? ""
    const planned = engine.plan(found, { url: String(url), header, text })
    if (planned === undefined) return judged(found, header, [url, init])
    const signal = init.signal ?? undefined
    const refused = (error: unknown): Response => {
      const own = signal?.aborted === true ? undefined : Engine.refuse(planned, error)
      if (own === undefined) throw error
      return responseOf(own.response)
    }
    const response = call(planned, signal, async (signal, change, target, traceparent) => {
      const to = target === undefined ? url : target.request.url
      return fetchResponseOf(
        await send(to, { ...outgoing(init, headers, hasOwn, change, target, traceparent), signal })
      )
    })
    return response.catch(refused)
  }

  const fetched: Fetch = (input, init = {}) => {
    const [method, url] = isRequest(input) ? [input.method, input.url] : ["GET", String(input)]
    const found = engine.route(init.method ?? method, url)
    if (found === undefined) return other(init.method ?? method, input, init)
    const separated = separate(input, init)
    return separated instanceof Promise ? separated.then((each) => governed(found, each)) : governed(found, separated)
  }
  // An `async` function would make three more promises for each call.
  return (input, init) => {
    try {
      return fetched(input, init)
    } catch (thrown) {
      return Promise.reject(thrown)
    }
  }
})
