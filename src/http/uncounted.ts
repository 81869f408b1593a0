/** Requests that are no calls: under a cap in dollars they are refused if they cost something that nobody counts. */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type { RunningLedger } from "../money/ledger.ts"
import { ledgerOf, type Purse, Purses } from "../domain/spending/models.ts"
import * as Lru from "../domain/input/lru.ts"
import { anthropic } from "../protocol/anthropic.ts"
import type { HeaderReader } from "../protocol/headers.ts"
import { agentInHeaders, namesOf } from "../protocol/lineage.ts"
import { match, type Match, pathOf, type Protocol } from "../protocol/protocol.ts"
import type { Refusal, RefusalResponse } from "../protocol/refusal.ts"
import { costOf, modelIn, overrideIn } from "../protocol/uncounted.ts"
import type { CallRequest, EngineSettings } from "./models.ts"

/** A request that is no call. */
export interface OtherRequest {
  readonly method: string
  readonly url: string
  readonly header: HeaderReader
  /** The protocol of its client, if the path shows it. */
  readonly protocol: Protocol | undefined
  readonly hasBody: boolean
  /** Its body, each byte as a character; undefined while it has not been read. */
  readonly body: string | undefined
  /** The sender, for the log. @default nobody in particular */
  readonly caller?: string | undefined
}

/** The judgement of a request that is no call. `"unread"`: it depends on the body, which was not read. */
export type Judgement = "passes" | "unread" | RefusalResponse

/** Stands for every model in the rules of a gateway: nobody can tell which model the request is for. */
export const anyModel = "*"

const maxWarned = 1_000
const longestShown = 200

/** A path without what differs from request to request, so that each kind of request is reported once. */
const kindOf = (url: string): string =>
  (pathOf(url) ?? "a malformed path")
    .replaceAll(/\/(?!v\d[a-z\d]*(?:\/|$))[^/:]*\d[^/:]*/g, "/{id}")
    .slice(0, longestShown)

/** Whether the body cannot be read, because it is compressed. */
const isEncoded = (header: HeaderReader): boolean => !/^(?:identity)?$/i.test(header("content-encoding") ?? "")

const refusalOf = (what: string, cap: string, model: string): Refusal => ({
  kind: "spendLimited",
  message: `${what}${model === anyModel ? "" : ` for the model ${model.slice(0, longestShown)}`} was not sent: the cap for ${cap} applies to it, and what it costs cannot be counted. Send it with a key that has no cap, or without Floodgate`
})

/** A request whose body was not read, as the options see a call. Only its headers name its agent and its job. */
export const unreadCall = (
  { header, protocol, url }: Pick<OtherRequest, "header" | "protocol" | "url">,
  model: string
): CallRequest => {
  const names = namesOf({ agentOf: agentInHeaders }, undefined, header)
  return { url, protocol: protocol?.name ?? "", model, ...names, header, body: undefined }
}

/** Judges requests that are no calls. */
export const makeJudge = (
  settings: EngineSettings,
  known: ReadonlyArray<Protocol>,
  context: Context.Context<never>,
  route: (method: string, url: string) => Match | undefined,
  warn: (effect: Effect.Effect<void>) => void
): ((request: OtherRequest) => Judgement) => {
  const { callOptions } = settings
  const around = Context.get(context, Purses)
  const warned = new Map<string, true>()

  /** A function of the options is meant for calls, and may not expect other requests. */
  const pursesOf = (request: CallRequest): ReadonlyArray<Purse> => {
    try {
      return (typeof callOptions === "function" ? callOptions(request) : callOptions)?.purses ?? []
    } catch {
      return []
    }
  }

  /** The name of a cap that applies to a request for a model. */
  const capOn = (request: OtherRequest, model: string): string | undefined => {
    const purses = [...around, ...pursesOf(unreadCall(request, model))]
    return purses.find((purse) => ledgerOf<RunningLedger>(purse).isCapped)?.name
  }

  const report = ({ caller = "" }: OtherRequest, kind: string, model: string): void => {
    const key = `${caller} ${kind}`
    if (warned.has(key)) return
    Lru.put(warned, key, true, maxWarned)
    const sender = caller === "" ? "" : ` of ${caller}`
    const asked = model === anyModel ? "" : ` for the model ${model.slice(0, longestShown)}`
    warn(
      Effect.logWarning(
        `${kind}${sender}${asked} is passed on without being paced or counted, because its usage cannot be read; under a cap in dollars it would be refused`
      )
    )
  }

  return (request) => {
    const { body, hasBody, header, url } = request
    const method = request.method.toUpperCase()
    const isOverridden = overrideIn(url, header) !== undefined
    const isHiddenCall = isOverridden && route("POST", url) !== undefined
    const cost = isHiddenCall ? "something" : costOf(isOverridden ? "POST" : method, url, hasBody)
    if (cost === "nothing") return "passes"
    const isByBody = cost === "by its body"
    if (isByBody && !hasBody) return "passes"
    if (isByBody && body === undefined) return capOn(request, anyModel) === undefined ? "passes" : "unread"
    const isHidden = isByBody && isEncoded(header)
    const model = isHidden || !isByBody ? anyModel : modelIn(body ?? "", header("content-type") ?? "")
    if (model === undefined) return "passes"
    const cap = capOn(request, model)
    const kind = `${method} ${kindOf(url)}`
    if (cap !== undefined) {
      const form = request.protocol ?? match(known, method, url)?.protocol ?? anthropic
      return form.refuse(refusalOf(kind, cap, model))
    }
    if (!isHidden) report(request, kind, model)
    return "passes"
  }
}
