/**
 * A pacing reverse proxy: clients in any language share one limit by changing their base URL.
 *
 * Requests go to Anthropic, OpenAI, Gemini, or any service that speaks their protocols. The `Governor` admits calls, settles
 * them to the usage in their answers, and retries them by its policy, as with the governed `fetch`. Where another gateway
 * answers 429, this one lets the caller wait. All other requests are passed on unchanged.
 *
 * **Details**
 *
 * - The path of a request decides its provider. Where providers share a path, the headers `anthropic-version` and
 *   `x-goog-api-key` decide. The name of an upstream in front of the path, as in `/anthropic/...`, always decides. A base URL
 *   may end with the version or not.
 * - Callers send their own keys, which the gateway passes through, and never logs or stores. Or the gateway has `keys` of its
 *   own: callers send one of these, and the upstream gets the provider's credential instead. Bodies are passed on byte for byte.
 * - A caller that waits receives nothing for 20 seconds, so that errors keep their status. Then its response begins with
 *   status 200, and pings (in a stream) or white space (before JSON) keep it alive. A call that finally fails after that
 *   ends with an error event, or with a broken connection if the answer is not a stream. So while a call without a stream waits for
 *   money of a cap, for at most 4 minutes, its response does not begin, and a refusal has its status 402.
 * - A call whose wait would be longer than `maxHold` is refused at once: 429 with a `retry-after` of 5 to 59 seconds.
 * - When a client disconnects, its call leaves the queue, and a request to the provider is aborted. A client that reads
 *   nothing for a minute is disconnected.
 * - When the scope closes, new requests are answered with 503, and the server closes when the clients of running requests have
 *   received their answers, at most after `drain`.
 * - `GET /floodgate/advice` says how many more agents help now (see `Agents.advise`), and `GET /floodgate/forecast` how long agents
 *   would take if all of them started now.
 * - `GET /floodgate/openapi.json` describes these and all other endpoints of the gateway itself.
 * - `GET /floodgate/` is a live page, `/metrics` is for Prometheus, `/healthz` answers while the gateway runs, and `/readyz`
 *   while it accepts requests.
 *
 * **Gotchas**
 *
 * The gateway listens on the loopback interface, and answers requests for the names of this machine only, because a website
 * could have its own name resolve to it; `hosts` adds names. On any other interface it requires a `token` from its callers, in the header
 * `x-floodgate-token` or in front of the path, as in `http://gateway:8788/token/TOKEN`, because the header for the key belongs
 * to the provider.
 *
 * Effect marks its HTTP and command-line modules unstable: this package is made for `effect` `~4.1`.
 *
 * **Example** (A gateway in a program)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 * import * as Budget from "floodgate/Budget"
 * import * as Gateway from "@floodgate/gateway"
 * import * as Governor from "floodgate/Governor"
 *
 * const live = Gateway.layer({ upstreams: { anthropic: "https://api.anthropic.com" } }).pipe(
 *   Layer.provide(Governor.layer()),
 *   Layer.provide(Budget.layer({ limits: { requests: { perMinute: 50 } } })),
 *   Layer.provide(Gateway.layerEvents)
 * )
 *
 * const program = Effect.gen(function* () {
 *   const { url } = yield* Gateway.Gateway
 *   return yield* Effect.promise(async () => (await fetch(`${url}/healthz`)).status)
 * })
 *
 * await Effect.runPromise(Effect.provide(program, live)) // => 200
 * ```
 *
 * @stability unstable
 * @since 0.2.0
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Equal from "effect/Equal"
import * as Exit from "effect/Exit"
import * as FiberSet from "effect/FiberSet"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import * as Budget from "floodgate/Budget"
import * as Events from "floodgate/Events"
import * as Governor from "floodgate/Governor"
import { Engine, History } from "floodgate/internal"
import type * as Spending from "floodgate/Spending"
import { type Journal, makeActivity, makeJournal } from "./activity.ts"
import * as Bodies from "./bodies.ts"
import { type LastingParts, makeGeneration } from "./generation.ts"
import { KeyUsers } from "./keyUsers.ts"
import * as Metrics from "./metrics.ts"
import { KeyAdditions, withAdded } from "./keyAdditions.ts"
import type { AddedKeys } from "./settings/newKeys.ts"
import { type ParsedOptions, type Options, parse } from "./options.ts"
import * as Page from "./page.ts"
import { CallerPurses } from "./purses.ts"
import { Tickets } from "./tickets.ts"
import { JobTrees } from "./trees.ts"
import { makeSessions } from "./records.ts"
import { RecentRequests } from "./requests.ts"
import * as Server from "./server.ts"
import { guarded, serving } from "./serving.ts"

export type { Options } from "./options.ts"
export { CannotListen } from "./server.ts"

// -----------------------------------------------------------------------------
// Services
// -----------------------------------------------------------------------------

/**
 * A running gateway.
 *
 * @stability unstable
 * @category services
 * @since 0.2.0
 */
export class Gateway extends Context.Service<
  Gateway,
  {
    /** The address of the gateway, such as `http://127.0.0.1:8788`: the base URL for clients. */
    readonly url: string
    /**
     * Replaces the options while calls run. Earlier calls keep the options they began with; host, port and `maxConnections` do
     * not change. Throws a `RangeError` for invalid options, and keeps the old ones.
     */
    readonly reload: (options: Options) => Effect.Effect<void>
    /** The amounts spent of the caps, as plain JSON without keys. Store it, and pass it to the next gateway as `spent`. */
    readonly spent: Effect.Effect<Readonly<Record<string, Effect.Success<Spending.Purse["kept"]>>>>
    /**
     * The keys that operators have added while it ran, as plain JSON with hashes only. Store them, and pass them to the next gateway
     * as `added`.
     *
     * @since 0.5.0
     */
    readonly added: Effect.Effect<AddedKeys>
  }
>()("@floodgate/gateway/Gateway") {}

/** How often the gateway looks whether a cap that is spent has begun anew, so that the log says so while nobody calls. */
const capReview = "10 seconds"

/** The recent rejections, retries and pauses that the page shows. */
const Remembered = Context.Reference<Journal | undefined>("@floodgate/gateway/Remembered", {
  defaultValue: () => undefined
})

/**
 * Records recent rejections, retries and pauses for the page. Provide it to the budget, to the governor and to the gateway.
 *
 * **Example** (Around all three)
 *
 * ```ts
 * import * as Layer from "effect/Layer"
 * import * as Budget from "floodgate/Budget"
 * import * as Gateway from "@floodgate/gateway"
 * import * as Governor from "floodgate/Governor"
 *
 * const live = Gateway.layer({ port: 8_788 }).pipe(
 *   Layer.provide(Governor.layer()),
 *   Layer.provide(Budget.layer({ limits: { requests: { perMinute: 50 } } })),
 *   Layer.provide(Gateway.layerEvents)
 * )
 * ```
 *
 * @stability unstable
 * @category layers
 * @since 0.2.0
 */
export const layerEvents: Layer.Layer<never> = Layer.effectContext(
  Effect.sync(() => {
    const journal = makeJournal()
    return Context.make(Events.Observer, journal.add).pipe(Context.add(Remembered, journal))
  })
)

// -----------------------------------------------------------------------------
// Constructors
// -----------------------------------------------------------------------------

/**
 * Starts a gateway that uses the governor of the context. It listens until its scope closes.
 *
 * **Gotchas**
 *
 * Throws a `RangeError` for invalid options, and for a host that is not loopback without a `token`.
 *
 * **Example** (Other weights from now on)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 * import * as Budget from "floodgate/Budget"
 * import * as Gateway from "@floodgate/gateway"
 * import * as Governor from "floodgate/Governor"
 *
 * const program = Effect.gen(function* () {
 *   const gateway = yield* Gateway.make({ rules: [{ agent: "nightly-*", priority: -5 }] })
 *   yield* gateway.reload({ rules: [{ agent: "nightly-*", priority: -5, weight: 0.1 }] })
 *   return yield* gateway.spent
 * })
 *
 * const live = Governor.layer().pipe(Layer.provideMerge(Budget.layer()))
 *
 * await Effect.runPromise(Effect.scoped(Effect.provide(program, live))) // => {}
 * ```
 *
 * @stability unstable
 * @category constructors
 * @since 0.2.0
 */
export const make = Effect.fnUntraced(function* (
  given: Options = {}
): Effect.fn.Return<Gateway["Service"], Server.CannotListen, Budget.TokenBudget | Governor.Governor | Scope.Scope> {
  parse("Gateway.make", given)
  const options = withAdded(given, given.added)
  const first = parse("Gateway.make", options)
  const context = yield* Effect.context<never>()
  const clock = yield* Clock.Clock
  const now = () => clock.currentTimeMillisUnsafe()
  const budget = yield* Budget.TokenBudget
  const history = Context.get(context, History)
  const journal = Context.get(context, Remembered)
  const scope = yield* Effect.scope
  const activity = yield* makeActivity(context, now)
  const purses = new CallerPurses(options.spent ?? {}, context, scope)
  const trees = new JobTrees(context, scope)
  const governor = yield* Governor.Governor
  const memory = yield* Bodies.makeMemory
  const set = yield* FiberSet.make<void, never>()
  const run = yield* FiberSet.runtime(set)()

  const lasting: LastingParts = {
    purses,
    trees,
    activity,
    accounts: Engine.makeAccounts(),
    sessions: makeSessions(),
    requests: new RecentRequests(now),
    tickets: new Tickets(now),
    now
  }
  const opened = Effect.fnUntraced(function* (options: Options, checked: ParsedOptions) {
    const inner = yield* Scope.fork(scope)
    const making = Scope.provide(makeGeneration(options, checked, lasting), inner).pipe(
      Effect.provideService(Governor.Governor, governor)
    )
    const made = yield* Effect.onError(making, () => Scope.close(inner, Exit.void))
    made.close = Effect.suspend(() => {
      // Its last calls may have noted places that a reload has changed.
      for (const model of modelsWithOtherPlaces(checked, current.checked)) history?.forgetPlaces(model)
      return Scope.close(inner, Exit.void)
    })
    activity.watch(purses.show(options.rules ?? [], options.keys !== undefined))
    return made
  })
  let current = yield* opened(options, first)
  const { server, url } = yield* Server.listen(first)
  const page = Page.make({
    ...lasting,
    budget,
    governor,
    configured: new Set(Object.keys((yield* budget.status).pools)),
    journal,
    current: () => current
  })
  const metrics = Metrics.exposition(context, budget, trees)
  let closing = false
  const users = new KeyUsers()

  const replace = (next: Options): Effect.Effect<void> =>
    Effect.gen(function* () {
      const checked = parse("Gateway.reload", next)
      const made = yield* opened(next, checked)
      const old = current
      current = made
      old.isOld = true
      users.keep(made.keyring)
      if (old.open === 0) yield* old.close
    }).pipe(Effect.uninterruptible)

  const keys = new KeyAdditions(given, replace)
  yield* Effect.forkScoped(reviewing(lasting))
  const serve = serving({ current: () => current, isClosing: () => closing, keys, memory, metrics, page, run, users })
  server.on("request", Server.oneByOne(guarded(serve, run)))
  yield* Effect.addFinalizer(() => {
    closing = true
    return Server.drained(() => activity.open, current.checked.drain)
  })
  return { url, reload: (next) => keys.replace(next), spent: Effect.sync(() => purses.kept), added: keys.kept }
})

/** Reports what is due although nobody calls. */
const reviewing = ({ purses, trees }: Pick<LastingParts, "purses" | "trees">): Effect.Effect<never> =>
  Effect.forever(
    Effect.andThen(
      Effect.sleep(capReview),
      Effect.sync(() => {
        purses.review()
        trees.review()
      })
    )
  )

/** The models whose places a reload has changed. */
const modelsWithOtherPlaces = (before: ParsedOptions, after: ParsedOptions): ReadonlyArray<string> =>
  Object.keys(before.places?.models ?? {}).filter(
    (model) => !Equal.equals(before.places?.models[model], after.places?.models[model])
  )

// -----------------------------------------------------------------------------
// Layers
// -----------------------------------------------------------------------------

/**
 * A layer with a gateway that listens until the layer's scope closes. Provide the same {@link layerEvents} to the governor and
 * the budget.
 *
 * @stability unstable
 * @category layers
 * @since 0.2.0
 */
export const layer = (
  options: Options = {}
): Layer.Layer<Gateway, Server.CannotListen, Budget.TokenBudget | Governor.Governor> => {
  parse("Gateway.layer", options)
  return Layer.effect(Gateway, make(options))
}
