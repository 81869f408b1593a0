/** Identifies the caller of a request, and finds the weight, the priority and the caps that apply to it. */
import type * as Budget from "floodgate/Budget"
import type * as Governor from "floodgate/Governor"
import type { CallRequest } from "floodgate/fetch"
import { Credentials, Engine, Lineage, type ProviderHeaders, Lru } from "floodgate/internal"
import { keyNameHeader } from "./credentials.ts"
import { type Showing, showing } from "./inferred.ts"
import { digestOf, keyNameOf, matcherOf, ownKey } from "./names.ts"
import type * as Spending from "floodgate/Spending"
import type { CallerKey, CallerPurses } from "./purses.ts"
import type { Rule } from "./settings/values.ts"
import type { JobTrees, JobSeat } from "./trees.ts"

/** The headers that tell interactive calls from batches: our own, and Claude Code's. */
const classHeaders = ["x-floodgate-class", "x-claude-code-request-class"] as const
const priorities: Readonly<Record<string, number>> = { interactive: 1, main: 1, batch: -1, background: -1 }

const priorityOf = (header: ProviderHeaders.HeaderReader): number => {
  const given = classHeaders.map(header).find((value) => value !== undefined && value !== null) ?? ""
  return Object.hasOwn(priorities, given) ? priorities[given]! : 0
}

const unknown: CallerKey = { name: keyNameOf(""), hash: "" }

/** More keys than the callers of a gateway have. One that is evicted is hashed again. */
const maxRemembered = 1_000
const longestRemembered = 1_024

/** Makes the function that names a key by its hash, which does not reveal it. It remembers the keys that were used last. */
const makeCallerKeys = (): ((key: string) => CallerKey) => {
  const remembered = new Map<string, CallerKey>()
  return (key) => {
    const known = remembered.get(key)
    if (known !== undefined) return known
    const digest = digestOf(key)
    const named = { name: keyNameOf(digest), hash: digest }
    if (key.length <= longestRemembered) Lru.put(remembered, key, named, maxRemembered)
    return named
  }
}

/** All keys of one name have one cap. */
const namedKey = (name: string): CallerKey => ({ name, hash: `${ownKey}${name}` })

/** Whom a bill counts for. */
export interface Payer {
  readonly agent: string
  /** The job of the agent, which is the agent itself if nothing names one. */
  readonly job: string
  readonly key: string
  /** The first rule with a name that applies; empty if none does. */
  readonly rule: string
  /** The turn of its conversation at which the call shows an agent that nothing names. */
  readonly shows?: Showing | undefined
}

/** The cost of an attempt. */
export type Bill = Parameters<NonNullable<Governor.CallOptions["onBilled"]>>[0]

/** A function of its own, because one within `makeCallers` would keep the request and its body as long as the call. */
const billTo =
  (payer: Payer, seat: JobSeat | undefined, billed: (payer: Payer, bill: Bill) => void) =>
  (bill: Bill): void => {
    seat?.billed(bill)
    billed(payer, bill)
  }

/** The seat of a caller's agent: no option of a call, so its key is a symbol. */
export const inJob: unique symbol = Symbol("inJob")

/** A caller, and the options of its calls. */
export interface Caller extends Governor.CallOptions {
  readonly agent: string
  readonly job: Budget.NamedJob
  /** Its name is that of its key. */
  readonly caller: Budget.NamedCaller
  readonly purses: ReadonlyArray<Spending.Purse>
  /** The seat of its agent in its job, if a rule caps that. */
  readonly [inJob]: JobSeat | undefined
}

/** Whether a rule is about keys, and not about some calls of a key. */
const isOfKeys = ({ agent, headers, model }: Rule): boolean =>
  agent === undefined && headers === undefined && model === undefined

export type FindCaller = (request: CallRequest) => Caller

/**
 * Finds the options of a call. For each setting, the first rule that matches and has the setting applies. Where the gateway has keys
 * of its own, callers are known by the names of their keys.
 */
export const makeCallers = (
  rules: ReadonlyArray<Rule>,
  purses: CallerPurses,
  trees: JobTrees,
  billed: (payer: Payer, bill: Bill) => void,
  hasKeys = false
): FindCaller => {
  const compiled = rules.map((rule) => ({
    rule,
    agent: matcherOf(rule.agent),
    key: matcherOf(rule.key),
    model: matcherOf(rule.model),
    headers: Object.entries(rule.headers ?? {}).map(([name, text]) => [name.toLowerCase(), matcherOf(text)] as const)
  }))
  const callerKeyOf = makeCallerKeys()
  return (request) => {
    const keys = hasKeys ? [request.header(keyNameHeader) ?? ""] : Credentials.credentialsOf(request)
    const callerKeys = (): ReadonlyArray<CallerKey> =>
      keys.length === 0 ? [unknown] : keys.map(hasKeys ? namedKey : callerKeyOf)
    const agent = request.agent ?? callerKeys()[0]!.name
    // The sub-agents of a session have its rules and its caps.
    const session = request.session ?? agent
    const matching = compiled
      .filter(
        (matches) =>
          matches.agent(session) &&
          (keys.length === 0 ? matches.key("") : keys.some(matches.key)) &&
          (request.model === Engine.anyModel || matches.model(request.model)) &&
          matches.headers.every(([name, isMatch]) => isMatch(request.header(name) ?? ""))
      )
      .map(({ rule }) => rule)
    const job = request.job ?? agent
    const key = callerKeys()[0]!
    const payer: Payer = {
      agent,
      job,
      key: key.name,
      rule: matching.find(({ name }) => name !== undefined)?.name ?? "",
      shows: showing(request)
    }
    const weightOf = (ofKeys: boolean): number | undefined =>
      matching.find((rule) => rule.weight !== undefined && isOfKeys(rule) === ofKeys)?.weight
    const seat = trees.of(matching, request, job, key)
    const paying = purses.of(matching, session, callerKeys)
    return {
      agent,
      job: { name: job, size: Lineage.jobSizeOf(request.header), weight: weightOf(false) },
      caller: { name: key.name, weight: weightOf(true) },
      onBilled: billTo(payer, seat, billed),
      priority: matching.find(({ priority }) => priority !== undefined)?.priority ?? priorityOf(request.header),
      purses: seat === undefined ? paying : [...paying, ...seat.purses],
      [inJob]: seat
    }
  }
}
