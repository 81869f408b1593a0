/** Serves the requests of the provider server: reads them in their protocol, and answers them as the simulation decides. */
import type { Message } from "@anthropic-ai/sdk/resources/messages/messages"
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as Stream from "effect/Stream"
import type * as Limits from "../../Limits.ts"
import { headerReader } from "../../protocol/headers.ts"
import { match, type Route } from "../../protocol/protocol.ts"
import * as Engine from "../engine.ts"
import * as Headers from "../headers.ts"
import type { HeaderMode, ServerKind } from "../models.ts"
import type * as ProviderSim from "../ProviderSim.ts"
import * as Simulator from "../simulator.ts"
import { kindOf } from "../servers.ts"
import { finished, reached, started, stepping } from "../started.ts"
import * as Conversations from "./conversations.ts"
import { anthropic } from "./dialects/anthropic.ts"
import * as Dialect from "./dialects/dialect.ts"
import { gemini } from "./dialects/gemini.ts"
import { llamaCpp } from "./dialects/llamaCpp.ts"
import { ollama } from "./dialects/ollama.ts"
import { openaiChat } from "./dialects/openaiChat.ts"
import { openaiEmbeddings } from "./dialects/openaiEmbeddings.ts"
import { openaiResponses } from "./dialects/openaiResponses.ts"
import * as Http from "./http.ts"
import * as Request from "./request.ts"

// -----------------------------------------------------------------------------
// The simulated provider in real time
// -----------------------------------------------------------------------------

/** A simulated provider in real time. */
export interface RunningProvider {
  readonly self: Simulator.Simulator
  readonly mode: HeaderMode
  /** How many times faster its time passes. */
  readonly scale: number
  /** The provider's time: milliseconds since it started. */
  readonly now: () => number
  /** The relation between its time and the caller's. */
  readonly wall: () => Headers.Wall
  readonly sleepUntil: (at: number) => Effect.Effect<void>
  /** Moves batches on while calls wait for them. */
  readonly step: Effect.Effect<void>
  /** The id of a request that does not reach the simulation. */
  readonly nextId: () => string
  readonly conversations: Conversations.StoredConversations
}

/** Starts a simulated provider, whose time passes `scale` times faster than the clock. */
export const play = (options: ProviderSim.Options, scale: number, clock: Clock.Clock): RunningProvider => {
  const start = clock.currentTimeNanosUnsafe()
  const now = (): number => (Number(clock.currentTimeNanosUnsafe() - start) / 1e6) * scale
  const sleepUntil = (at: number): Effect.Effect<void> =>
    Effect.suspend(() => {
      const wait = (at - now()) / scale
      return wait <= 0 ? Effect.void : Effect.sleep(wait)
    })
  const self = Simulator.make(options)
  let served = 0
  return {
    self,
    mode: options.headers ?? "rounded",
    scale,
    now,
    wall: () => ({ epochMillis: clock.currentTimeMillisUnsafe(), scale }),
    sleepUntil,
    step: stepping(self.engine, { now: Effect.sync(now), sleepUntil }),
    nextId: () => `req_http_${(++served).toString().padStart(8, "0")}`,
    conversations: Conversations.make()
  }
}

/** Waits for the end of a call. */
const finish = ({ self, sleepUntil }: RunningProvider, call: Engine.AcceptedCall): Effect.Effect<void> =>
  finished(self.engine, call, sleepUntil)

// -----------------------------------------------------------------------------
// Answers
// -----------------------------------------------------------------------------

/** A parsed request. */
interface ParsedRequest {
  readonly dialect: Dialect.Dialect
  readonly read: Dialect.ReadRequest
  readonly exchange: Omit<Dialect.AnswerContext, "elapsed" | "requestId">
  readonly query: URLSearchParams
  readonly streams: boolean
}

/** The rate limit headers of the protocol. */
const limitsTold = (
  { mode, now, self, wall }: RunningProvider,
  { limitHeaders }: Dialect.Dialect,
  model: string
): Record<string, string> => {
  if (limitHeaders === undefined) return {}
  const figures = Engine.figures(self.engine, now(), model)
  const windows = Headers.longWindows(mode, Engine.windowFigures(self.engine, now(), model), wall(), limitHeaders)
  if (limitHeaders === "anthropic") return { ...Headers.rateLimits(mode, figures, wall()), ...windows }
  // OpenAI rounds no rates.
  return { ...Headers.rateLimits(mode === "rounded" ? "openai" : mode, figures, wall(), "openai"), ...windows }
}

/** The facts from which the answer to a call is written. */
const contextOf = (
  { now, scale }: RunningProvider,
  { exchange }: ParsedRequest,
  { requestId }: Simulator.SimulatedAnswer,
  { entry, firstTokenAt, sequence }: Engine.AcceptedCall
): Dialect.AnswerContext => ({
  ...exchange,
  requestId,
  elapsed: () => {
    const at = now()
    const between = (from: number, to: number): number => Math.max(0, to - from) / scale
    return {
      totalMillis: between(entry.at, at),
      promptMillis: between(sequence?.readyAt ?? entry.at, firstTokenAt),
      outputMillis: between(firstTokenAt, at)
    }
  }
})

const requestIdOf = ({ requestIdHeader }: Dialect.Dialect, requestId: string): Record<string, string> =>
  requestIdHeader === undefined ? {} : { [requestIdHeader]: requestId }

const failure = (
  dialect: Dialect.Dialect,
  failed: Dialect.DialectFailure,
  requestId: string,
  headers: Record<string, string> = {}
): HttpServerResponse.HttpServerResponse => {
  const { body, status } = dialect.failure(failed, requestId)
  return HttpServerResponse.jsonUnsafe(body, { status, headers: { ...headers, ...requestIdOf(dialect, requestId) } })
}

/** A rejection with the limit that was reached, and with the wait, in the caller's time. */
const rejectionOf = (
  { mode, now, self, wall }: RunningProvider,
  { entry, retryAfterMillis, ...rejected }: Engine.Rejected
): Dialect.DialectFailure => {
  const dimension = entry.rejectedBy as Limits.Dimension
  const figure = mode === "none" ? undefined : Engine.figures(self.engine, now(), entry.model)[dimension]
  return {
    ...rejected,
    limit: figure && { dimension, perMinute: Math.round(figure.limit * wall().scale) },
    retryAfterMillis: Headers.retryAfterMillis(mode, retryAfterMillis, wall())
  }
}

/** Returns the call of an admitted request, or the response to any other. */
const admitted = Effect.fnUntraced(function* (
  playing: RunningProvider,
  dialect: Dialect.Dialect,
  answer: Simulator.SimulatedAnswer
) {
  const { decision, params, requestId } = answer
  switch (decision._tag) {
    case "Refused":
      yield* Http.destroy
      return HttpServerResponse.empty()
    case "Rejected": {
      const limits = decision.status === 429 ? limitsTold(playing, dialect, params.model) : {}
      const { mode, wall } = playing
      const wait = dialect.limitHeaders === undefined ? {} : Headers.retryAfter(mode, decision.retryAfterMillis, wall())
      const rejection = rejectionOf(playing, decision)
      yield* playing.sleepUntil(decision.answersAt)
      return failure(dialect, rejection, requestId, { ...limits, ...wait })
    }
    case "Accepted": {
      yield* started(decision.call)
      if (decision.call.fault !== "timeout") return decision.call
      yield* finish(playing, decision.call)
      return failure(dialect, Request.timedOut, requestId)
    }
  }
})

/** Stores the conversation of a complete answer. */
const keep = ({ conversations }: RunningProvider, { dialect, read }: ParsedRequest, message: Message): void => {
  for (const [id, conversation] of dialect.stored(message, read)) conversations.keep(id, conversation)
}

const whole = Effect.fnUntraced(function* (
  playing: RunningProvider,
  asked: ParsedRequest,
  answer: Simulator.SimulatedAnswer,
  call: Engine.AcceptedCall
) {
  if (call.fault === "stall") return yield* Effect.never
  yield* finish(playing, call)
  if (call.fault !== undefined && call.fault !== "malformed") return yield* Http.broken
  const { dialect } = asked
  const { params, requestId } = answer
  const message = Simulator.message(playing.self, answer)
  const body = JSON.stringify(dialect.whole(message, contextOf(playing, asked, answer, call)))
  const headers = { ...limitsTold(playing, dialect, params.model), ...requestIdOf(dialect, requestId) }
  const given = { contentType: "application/json", headers }
  if (call.fault === "malformed") return HttpServerResponse.text(body.slice(0, body.length / 2), given)
  keep(playing, asked, message)
  return HttpServerResponse.text(body, given)
})

const encoder = new TextEncoder()

/** An event that is not JSON, in place of the last events. */
const garbled = encoder.encode('data: {"type":"message_de\n\n')

const streamed = Effect.fnUntraced(function* (
  playing: RunningProvider,
  asked: ParsedRequest,
  answer: Simulator.SimulatedAnswer,
  call: Engine.AcceptedCall,
  limits: Record<string, string>
) {
  yield* reached(call, { at: call.firstTokenAt, tokens: 0 }, playing.sleepUntil)
  const { dialect, query } = asked
  const { requestId } = answer
  const { contentType, write } = dialect.stream(contextOf(playing, asked, answer, call), query)
  const events = Stream.fromIterable(Simulator.events(playing.self, answer, call)).pipe(
    Stream.mapEffect(({ event, ...moment }) =>
      Effect.map(reached(call, moment, playing.sleepUntil), () => {
        if (event.type === "message_stop") keep(playing, asked, Simulator.message(playing.self, answer))
        return encoder.encode(write(event))
      })
    ),
    Stream.filter((bytes) => bytes.length > 0)
  )
  const last = call.fault === "cut" ? Http.broken : Effect.void
  const ending = call.fault === "stall" ? Effect.never : Effect.andThen(finish(playing, call), last)
  const context = yield* Effect.context<HttpServerRequest.HttpServerRequest>()
  const end = Stream.fromEffect(Effect.provideContext(ending, context))
  const body = Stream.concat(events, call.fault === "malformed" ? Stream.map(end, () => garbled) : Stream.drain(end))
  return HttpServerResponse.stream(body, {
    contentType,
    headers: { ...limits, "cache-control": "no-cache", ...requestIdOf(dialect, requestId) }
  })
})

// -----------------------------------------------------------------------------
// Endpoints
// -----------------------------------------------------------------------------

const hosted: ReadonlyArray<Dialect.Dialect> = [anthropic, openaiEmbeddings, openaiChat, openaiResponses, gemini]

/** The servers that have an API of their own beside those of others. */
const ofServers: { readonly [K in ServerKind]?: Dialect.Dialect } = { "llama.cpp": llamaCpp, ollama }

const dialectsOf = (playing: RunningProvider): ReadonlyArray<Dialect.Dialect> => {
  const kind = kindOf(playing.self.options)
  const own = kind && ofServers[kind]
  return own === undefined ? hosted : [...hosted, own]
}

const generate = Effect.fnUntraced(function* (
  playing: RunningProvider,
  asked: ParsedRequest,
  agent: string | undefined
) {
  const { dialect, read, streams } = asked
  const answer = yield* Effect.acquireRelease(
    Effect.sync(() => Simulator.ask(playing.self, playing.now(), read.params, agent)),
    ({ decision }) =>
      Effect.sync(() => {
        if (decision._tag === "Accepted") Engine.abort(playing.self.engine, playing.now(), decision.call)
      })
  )
  // The headers of a stream are sent before its body, and know nothing of this answer's output.
  const limits = streams ? limitsTold(playing, dialect, read.params.model) : {}
  yield* playing.step
  const call = yield* admitted(playing, dialect, answer)
  if (HttpServerResponse.isHttpServerResponse(call)) return call
  return yield* streams ? streamed(playing, asked, answer, call, limits) : whole(playing, asked, answer, call)
})

const countTokens = ({ nextId, self }: RunningProvider, dialect: Dialect.Dialect, { params }: Dialect.ReadRequest) => {
  self.engine.counters.countTokens++
  const counted = HttpServerResponse.jsonUnsafe(dialect.counted(Simulator.countTokens(self, params)), {
    headers: requestIdOf(dialect, nextId())
  })
  const millis = self.options.latency?.countTokensMillis ?? 0
  return Effect.delay(Effect.succeed(counted), millis)
}

/** Begins a conversation without an answer. It does not count towards the limits. */
const begin = (
  { conversations, nextId, wall }: RunningProvider,
  dialect: Dialect.Dialect,
  route: Route,
  body: Dialect.Body
) => {
  const requestId = nextId()
  const createdAt = Math.floor(wall().epochMillis / 1_000)
  const begun = dialect.begin?.(body, route, { createdAt, requestId })
  if (begun === undefined || !("conversation" in begun))
    return Effect.fail(begun ?? Request.notFound("POST", route.path))
  conversations.keep(begun.id, begun.conversation)
  return Effect.succeed(HttpServerResponse.jsonUnsafe(begun.body, { headers: requestIdOf(dialect, requestId) }))
}

/** The requests that the server accepts. */
export interface Accepted {
  /** The keys; undefined for any. */
  readonly keys: ReadonlyArray<string> | undefined
  readonly maxBodyBytes: number
  /** Whether a model exists; undefined if any does. */
  readonly models: ((model: string) => boolean) | undefined
}

const vendorOf = (dialect: Dialect.Dialect): Request.Vendor =>
  dialect === gemini ? "gemini" : (dialect.limitHeaders ?? "anthropic")

/** Serves one request of a protocol. */
const served = Effect.fnUntraced(function* (
  playing: RunningProvider,
  dialect: Dialect.Dialect,
  route: Route,
  request: HttpServerRequest.HttpServerRequest,
  { keys, maxBodyBytes, models }: Accepted
) {
  const { method, url } = request
  const begins = method === "POST" && dialect.begin !== undefined
  if (route.operation === "passThrough" && !begins) return yield* Effect.fail(Request.notFound(method, url))
  const vendor = vendorOf(dialect)
  const needsKey = kindOf(playing.self.options) === undefined
  const body = yield* Http.readBody({
    keys,
    maxBytes: maxBodyBytes,
    needsKey,
    wrongKey: Request.wrongKey[vendor]
  })
  if (route.operation === "passThrough") return yield* begin(playing, dialect, route, body)
  const { find } = playing.conversations
  const counts = route.operation === "countTokens"
  const read = counts ? dialect.readCount(body, route, find) : dialect.read(body, route, find)
  if (!Dialect.isRead(read)) return yield* Effect.fail(read)
  const { model } = read.params
  if (models !== undefined && !models(model)) return yield* Effect.fail(Request.modelNotFound(vendor, model))
  if (counts) return yield* countTokens(playing, dialect, read)
  const description = dialect.protocol.describe(body, route)
  const exchange = { body, createdAt: Math.floor(playing.wall().epochMillis / 1_000) }
  const query = Http.queryOf(url)
  const asked = { dialect, exchange, query, read, streams: description?.stream === true }
  return yield* generate(playing, asked, dialect.protocol.agentOf(body, headerReader(request.headers)))
})

/** Answers a request in the protocol of its path. Errors for unknown paths have Anthropic's form. */
export const answered = Effect.fnUntraced(function* (playing: RunningProvider, accepted: Accepted) {
  const request = yield* HttpServerRequest.HttpServerRequest
  const { method, url } = request
  const dialects = dialectsOf(playing)
  const found = match(
    dialects.map(({ protocol }) => protocol),
    method,
    url
  )
  const dialect = dialects.find(({ protocol }) => protocol === found?.protocol) ?? anthropic
  const answer =
    found === undefined
      ? Effect.fail(Request.notFound(method, url))
      : served(playing, dialect, found.route, request, accepted)
  const failed = (error: Request.ApiError) => Effect.sync(() => failure(dialect, error, playing.nextId()))
  return yield* answer.pipe(
    Effect.catch(failed),
    Effect.catchDefect(() => failed(Request.failed))
  )
})
