/** Plans the calls of known protocols: what a request asks for, how its provider counts, and the options that apply. */
import * as EffectResult from "effect/Result"
import * as Accounting from "../Accounting.ts"
import * as Called from "../call/models.ts"
import { check } from "../domain/input/checks.ts"
import { isRecord, parseJson } from "../protocol/json.ts"
import { jobSizeOf, namesOf } from "../protocol/lineage.ts"
import { callIn, type Match, type Protocol } from "../protocol/protocol.ts"
import { takesSlowLane } from "../protocol/headers.ts"
import { hasServerTools } from "../protocol/serverTools.ts"
import * as Lru from "../domain/input/lru.ts"
import type { CallRequest, CallTerms, EngineSettings, HttpCall, IncomingRequest } from "./models.ts"
import { type PlacesByModel, placesHeader } from "./places.ts"

/** More addresses than a program calls, and the longest that is remembered: clients of a gateway can invent them. */
const maxRemembered = 1_000
const longestRemembered = 256

/**
 * Finds the protocol of a call by its method and URL. Matching a path costs more than reading a short request, so the results for
 * calls are remembered, without their queries and for no URL that could contain a password.
 */
export const routes = (known: ReadonlyArray<Protocol>): ((method: string, url: string) => Match | undefined) => {
  const remembered = new Map<string, Match>()
  return (method, url) => {
    const query = url.indexOf("?")
    const name = `${method} ${query < 0 ? url : url.slice(0, query)}`
    const seen = remembered.get(name)
    if (seen !== undefined) return seen
    const found = callIn(known, method, url)
    if (found === undefined) return undefined
    if (name.length <= longestRemembered && !name.includes("@")) Lru.put(remembered, name, found, maxRemembered)
    return found
  }
}

/** The burndown rate of Claude Sonnet 4 on Bedrock; see {@link Accounting.bedrockRuntime}. */
const bedrock = Accounting.bedrockRuntime({ burndown: 5 })

/** The accounting of a route's provider. Compatible services are assumed to count like it, until headers correct that. */
export const accountingOf = ({ protocol, route }: Match, url: string): Accounting.Accounting => {
  const { path } = route
  switch (protocol.provider) {
    case "anthropic":
      if (path.includes("/publishers/")) return Accounting.vertex
      return path.startsWith("/model/") ? bedrock : Accounting.anthropic
    case "openai":
      return path.includes("/openai/deployments/") || /\.azure\.com(?=[:/]|$)/.test(url)
        ? Accounting.azure
        : Accounting.openai
    case "gcp.gemini":
      return Accounting.gemini
    case "aws.bedrock":
      return bedrock
    default:
      return Accounting.openai
  }
}

const given = <A>(option: A | ((request: CallRequest) => A) | undefined, request: CallRequest): A | undefined =>
  typeof option === "function" ? (option as (request: CallRequest) => A)(request) : option

/** The model of a call without one: a stored prompt names it, or the service has a single model. */
const unnamed = "unknown"

/** The accounting of a call that may be several requests to the provider. */
const countedAs = (accounting: Accounting.Accounting, requests: number | undefined): Accounting.Accounting =>
  requests === undefined
    ? accounting
    : {
        ...accounting,
        estimate: (expected) => ({ ...accounting.estimate(expected), requests }),
        usage: (actual, maxTokens) => ({ ...accounting.usage(actual, maxTokens), requests })
      }

/** The places where a call may be made: those of its options that its header names. The header can only restrict them further. */
const placesFor = (
  header: IncomingRequest["header"],
  given: ReadonlyArray<string> | undefined
): ReadonlyArray<string> | undefined => {
  const named = header(placesHeader)
    ?.split(",")
    .map((name) => name.trim())
  return named === undefined || given === undefined ? (named ?? given) : given.filter((name) => named.includes(name))
}

/** The job of a request, with the size that it states. */
const jobOf = ({ header, job }: CallRequest): Called.CallOptions["job"] => {
  const size = jobSizeOf(header)
  return job === undefined || size === undefined ? job : { name: job, size }
}

/** Evaluates the options for a call. Their callbacks see its body, which nothing keeps afterwards. */
const termsOf = (
  found: Match,
  request: CallRequest,
  settings: EngineSettings,
  requests: number | undefined,
  hasPlaces: boolean
): CallTerms => {
  const callOptions = given(settings.callOptions, request)
  if (callOptions !== undefined) check(`${settings.operation}: callOptions`, Called.callOptionsCheck, callOptions)
  return {
    account: settings.account?.(request),
    accounting: countedAs(given(settings.accounting, request) ?? accountingOf(found, request.url), requests),
    callOptions: {
      agent: request.agent,
      job: jobOf(request),
      ...callOptions,
      places: hasPlaces ? placesFor(request.header, callOptions?.places) : undefined
    }
  }
}

const insertionFor = ({ usageRequest }: Protocol, body: unknown): string | undefined =>
  isRecord(body) ? usageRequest?.insertion?.(body) : undefined

/** Plans a call; undefined if its body does not fit the protocol. */
export const planOf = (
  found: Match,
  { header, hold, parsed: ready, text, url }: IncomingRequest,
  settings: EngineSettings,
  places: PlacesByModel
): HttpCall | undefined => {
  const { protocol, route } = found
  const body = ready ?? parseJson(text?.())
  const description = protocol.describe(body, route, header)
  if (description === undefined) return undefined
  const { model = unnamed, requests } = description
  const needsUsageRequest = (settings.streamUsage ?? true) && description.needsUsageRequest
  const placesOfModel = places.get(model)
  const request = { url, protocol: protocol.name, model, ...namesOf(protocol, body, header), header }
  return {
    match: found,
    description: { ...description, model, serverTools: hasServerTools(body), slowLane: takesSlowLane(header) },
    request,
    terms: EffectResult.try({
      try: () => termsOf(found, { ...request, body }, settings, requests, placesOfModel !== undefined),
      catch: (thrown) => thrown
    }),
    text,
    streams: description.stream ? (protocol.streamFormat?.(url) ?? "events") : undefined,
    needsUsageRequest,
    usageInsertion: needsUsageRequest ? insertionFor(protocol, body) : undefined,
    hold,
    places: placesOfModel
  }
}
