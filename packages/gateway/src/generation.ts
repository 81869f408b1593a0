/** Everything in a gateway that depends on its options. */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as LogLevel from "effect/LogLevel"
import * as References from "effect/References"
import { Engine, Silence } from "floodgate/internal"
import type { Activity } from "./activity.ts"
import { makeAuth } from "./auth.ts"
import type { ProxyParts } from "./call.ts"
import { makeCallers } from "./callers.ts"
import { makeKeyring } from "./keys.ts"
import type { Options, ParsedOptions } from "./options.ts"
import type { CallerPurses } from "./purses.ts"
import { makeRecorder, type Sessions } from "./records.ts"
import type { RecentRequests } from "./requests.ts"
import * as Response from "./response.ts"
import { makeRouter } from "./routes.ts"
import type { Rule } from "./settings/values.ts"
import { makeBeginSpan } from "./tracing.ts"
import type { Tickets } from "./tickets.ts"
import * as Transport from "./transport.ts"
import type { JobTrees } from "./trees.ts"

/** The parts that outlive a reload. */
export interface LastingParts {
  readonly purses: CallerPurses
  readonly trees: JobTrees
  readonly tickets: Tickets
  readonly activity: Activity
  readonly accounts: Engine.Accounts
  readonly sessions: Sessions
  readonly requests: RecentRequests
  readonly now: () => number
}

const hasCap = ({ cap, capPerAgent, capPerKey }: Rule): boolean =>
  [cap, capPerAgent, capPerKey].some((each) => each !== undefined)

/** Builds everything that depends on the options. A reload replaces it as a whole. */
export const makeGeneration = Effect.fnUntraced(function* (
  options: Options,
  checked: ParsedOptions,
  { accounts, activity, now, purses, requests, sessions, tickets, trees }: LastingParts
) {
  const { keys, rules = [] } = options
  const credentialNames = new Map(Array.from(checked.credentials, ([name, secret]) => [secret, name]))
  const recorder = options.record && makeRecorder(options.record, sessions, now)
  const find = makeCallers(rules, purses, trees, (payer, bill) => activity.billed(payer, bill), keys !== undefined)
  const engine = yield* Engine.make({
    ...options,
    places: checked.places,
    operation: "Gateway.make",
    accounts,
    credentialName: (credential) => credentialNames.get(credential),
    callOptions: find,
    used: recorder?.used
  })
  const context = yield* Effect.context<never>()
  const fork = Effect.runForkWith(context)
  const logsDebug = LogLevel.isGreaterThanOrEqualTo("Debug", Context.get(context, References.MinimumLogLevel))
  const transports = new Map<string, Transport.Transport>()
  for (const upstream of checked.upstreams.values()) {
    transports.set(upstream.name, yield* Transport.make(upstream, checked.timeout))
  }
  const parts: ProxyParts = {
    engine,
    transports,
    places: checked.places,
    activity,
    recorder,
    purses,
    trees,
    tickets,
    find,
    statesCaps: checked.rateLimitHeaders && rules.some(hasCap),
    requests: checked.requestsToken === undefined ? undefined : requests,
    now,
    timer: Silence.timerOf(context),
    log: logsDebug ? (end) => void fork(Effect.logDebug(end)) : undefined,
    keeper: yield* Response.makeKeeper(checked.silence, checked.keepAlive, () => activity.held()),
    maxHold: checked.maxHold,
    reviewAfter: 0.9 * Duration.toMillis(checked.silence)
  }
  return {
    checked,
    parts,
    door: makeAuth(checked.token, checked.hosts),
    keyring: keys && makeKeyring(keys),
    route: makeRouter(checked.upstreams, engine.route),
    beginSpan: makeBeginSpan(context),
    open: 0,
    isOld: false,
    close: Effect.void as Effect.Effect<void>
  }
})

/** Everything that was built from one set of options. */
export type Generation = Effect.Success<ReturnType<typeof makeGeneration>>
